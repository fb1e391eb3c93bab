"""The foreign layouts that are known, and the golden checks: the one registry of `codi convert`.

A family of checkpoints is plugged in here: its tables, each with its prefix, its part of ours and
what it is recognised by, as modules of a layout of `LAYOUTS`; models that only look like it in
`RELATIVES`; its golden checks in `CHECKS`. The tests go through all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.mel import MelCodecConfig
from codi.codecs.optimus import OptimusConfig
from codi.codecs.vocoder import VocoderConfig
from codi.convert import (
    check_codecs,
    check_encoders,
    check_sampling,
    check_unets,
    codecs,
    configs,
    encoders,
    stable_diffusion,
    unets,
)
from codi.convert.encoders import TOKENS
from codi.convert.golden import Check
from codi.convert.kept_files import BERT_TOKENIZER, CLIP_TOKENIZER, GPT2_TOKENIZER
from codi.convert.latent_diffusion import (
    AUTOENCODER_CLASS,
    LATENT_DIFFUSION,
    SCHEDULE,
    VISION,
    WIDTHS,
    has_one_width,
)
from codi.convert.rules import Table
from codi.convert.sources import (
    ForeignLayout,
    ForeignModule,
    ForeignPipeline,
    Relative,
    Skip,
    signs_of,
)
from codi.convert.stable_diffusion import (
    SD_BARE_TEXT,
    SD_DIFFUSERS,
    SD_LDM,
    SD_LDM_AUTOENCODER,
    SD_LDM_BARE_TEXT,
    SD_OLD_DIFFUSERS,
)
from codi.encoders.clap import ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig
from codi.encoders.environment import PooledEnvironmentConfig
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNetConfig


def _alone(table: Callable[[Any], Table]) -> Callable[[Any], Table]:
    """Return a table whose part is whole only with another file: nothing of it is fresh."""
    return lambda config: replace(table(config), fresh={})


def _with_unused(table: Callable[[Any], Table], more: Mapping[str, str]) -> Callable[[Any], Table]:
    def extended(config: Any) -> Table:
        found = table(config)
        return replace(found, unused={**found.unused, **more})

    return extended


# --- the released CoDi ---


def _released_network(
    name: str, of: tuple[str, ...], kind: type[Any], file: str
) -> tuple[ForeignModule, ForeignModule]:
    """Return a diffuser and the environment encoder that lies below the same name."""
    prefix = f"{unets.MODEL}.{name}."
    diffuser = ForeignModule(
        prefix=prefix,
        role="diffusers",
        of=of,
        kind=kind,
        table=unets.released_diffuser,
        signs=signs_of("time_embed.0.weight", "input_block_connecters_in.1.0.norm.weight"),
        file=file,
    )
    environment = ForeignModule(
        prefix=prefix,
        role="environments",
        of=of,
        kind=PooledEnvironmentConfig,
        table=unets.released_environment,
        signs=signs_of("connecters_out.0.0.weight"),
        file=file,
    )
    return diffuser, environment


RELEASED = ForeignLayout(
    "released",
    "the released CoDi",
    "release",
    (
        ForeignModule(
            prefix="autokl.",
            role="codecs",
            of=VISION,
            kind=AutoencoderKLConfig,
            table=codecs.autoencoder_kl,
            signs=signs_of("quant_conv.weight", encoder__conv_in__weight=3),
            file="CoDi_encoders",
        ),
        ForeignModule(
            prefix="audioldm.",
            role="codecs",
            of=("audio",),
            kind=MelCodecConfig,
            table=codecs.mel_codec,
            signs=signs_of("vocoder.conv_pre.weight", encoder__conv_in__weight=1),
            file="CoDi_encoders",
        ),
        ForeignModule(
            prefix="optimus.",
            role="codecs",
            of=("text",),
            kind=OptimusConfig,
            table=codecs.optimus,
            signs=signs_of("encoder.linear.weight", "decoder.transformer.linear_emb.weight"),
            file="CoDi_encoders",
            files=(BERT_TOKENIZER, GPT2_TOKENIZER),
        ),
        ForeignModule(
            prefix="clip.model.",
            role="encoders",
            of=("text",),
            kind=ClipTextConfig,
            table=encoders.clip_text,
            signs=signs_of("text_projection.weight"),
            file="CoDi_encoders",
            files=(CLIP_TOKENIZER,),
        ),
        ForeignModule(
            prefix="clip.model.",
            role="encoders",
            of=VISION,
            kind=ClipVisionConfig,
            table=encoders.clip_vision,
            signs=signs_of("visual_projection.weight"),
            file="CoDi_encoders",
        ),
        ForeignModule(
            prefix="clap.model.",
            role="encoders",
            of=("audio",),
            kind=ClapAudioConfig,
            table=encoders.clap_audio,
            signs=signs_of("audio_projection.0.weight"),
            file="CoDi_encoders",
        ),
        *_released_network("unet_image", VISION, UNetConfig, "CoDi_video_diffuser_8frames"),
        *_released_network("unet_text", ("text",), TextUNetConfig, "CoDi_text_diffuser"),
        *_released_network("unet_audio", ("audio",), UNetConfig, "CoDi_audio_diffuser_m"),
    ),
    unused=SCHEDULE,
)

_IN_CODI = {(module.prefix, module.of): module for module in RELEASED.modules}
_VERSATILE_FILE = "versatile_diffusion"

VERSATILE = ForeignLayout(
    "versatile-text",
    "Versatile Diffusion's text diffuser, and what lies beside it",
    "release",
    (
        ForeignModule(
            prefix=f"{unets.MODEL}.unet_text.",
            role="diffusers",
            of=("text",),
            kind=TextUNetConfig,
            table=lambda config: unets.versatile_text(config, ""),
            signs=signs_of("time_embed.0.weight", absent=("connecters_out.0.0.weight",)),
            file=_VERSATILE_FILE,
            begins=("environments",),
        ),
        # The released CoDi has these codecs, and this CLIP with blocks across frames.
        *(
            replace(_IN_CODI[prefix, of], table=table, file=_VERSATILE_FILE)
            for prefix, of, table in (
                ("autokl.", VISION, codecs.autoencoder_kl),
                ("optimus.", ("text",), codecs.optimus),
                ("clip.model.", ("text",), encoders.clip_text_published),
                ("clip.model.", VISION, encoders.clip_vision_published),
            )
        ),
    ),
    unused={
        **LATENT_DIFFUSION,
        f"{unets.MODEL}.unet_image.*": "Versatile Diffusion's image diffuser, which takes prompts "
        "of many tokens; a vision diffuser begins from Stable Diffusion's",
        "clip.model.logit_scale": "the temperature of contrastive training",
    },
)

_AUDIOLDM_PIPELINE = ForeignPipeline(
    "AudioLDMPipeline",
    {
        "unet": ("diffusers", "UNet2DConditionModel"),
        "text_encoder": ("transformers", "ClapTextModelWithProjection"),
        "vocoder": ("transformers", "SpeechT5HifiGan"),
        **AUTOENCODER_CLASS,
    },
)
"""Never whole: its diffuser and its text encoder are none of CoDi's."""

# --- AudioLDM ---

AUDIOLDM_LDM = ForeignLayout(
    "audioldm-ldm",
    "AudioLDM's codec in one file",
    "release",
    (
        ForeignModule(
            prefix="first_stage_model.",
            role="codecs",
            of=("audio",),
            kind=MelCodecConfig,
            table=codecs.mel_codec,
            signs=signs_of("vocoder.conv_pre.weight", encoder__conv_in__weight=1),
            file="audioldm",
            description=configs.TRAINED_AUTOENCODER.inside("autoencoder"),
        ),
    ),
    unused={
        **LATENT_DIFFUSION,
        f"{unets.MODEL}.*": "AudioLDM's own diffuser, which takes other prompts",
        "cond_stage_model.*": "AudioLDM's prompt encoder; CoDi's are CLIP and CLAP",
        "clap.*": "AudioLDM's judge of sounds",
    },
)

AUDIOLDM_DIFFUSERS = ForeignLayout(
    "audioldm-diffusers",
    "AudioLDM's codec in a folder of diffusers",
    "release",
    (
        ForeignModule(
            prefix="",
            role="codecs",
            of=("audio",),
            kind=AutoencoderKLConfig,
            table=lambda config: codecs.autoencoder_kl(config, names=codecs.DIFFUSERS),
            signs=signs_of(
                "encoder.mid_block.attentions.0.to_q.weight", encoder__conv_in__weight=1
            ),
            file="vae/diffusion_pytorch_model",
            inside="autoencoder",
            fits=lambda config: has_one_width(getattr(config, "autoencoder", None)),
            misfit=WIDTHS,
            description=configs.AUTOENCODER.inside("autoencoder"),
            describe=codecs.autoencoder_kl_config,
        ),
        ForeignModule(
            prefix="",
            role="codecs",
            of=("audio",),
            kind=VocoderConfig,
            table=_with_unused(
                lambda config: codecs.vocoder(config, upsample="upsampler"), codecs.SPEECH_T5
            ),
            signs=signs_of("conv_pre.weight", "upsampler.0.weight"),
            file="vocoder/model",
            inside="vocoder",
            fits=lambda config: getattr(getattr(config, "vocoder", None), "paired", True),
            misfit="SpeechT5HifiGan has HiFi-GAN's first kind of residual block only",
            description=configs.VOCODER,
            describe=codecs.vocoder_config,
        ),
    ),
    skips=(
        Skip(
            signs_of("time_embedding.linear_1.weight", conv_in__weight=8),
            "AudioLDM's own diffuser, which takes other prompts",
        ),
        Skip(
            signs_of("text_model.embeddings.word_embeddings.weight"),
            "AudioLDM's prompt encoder; CoDi's are CLIP and CLAP",
        ),
    ),
    pipeline=_AUDIOLDM_PIPELINE,
)

# --- prompt encoders and OPTIMUS ---

CLIP = ForeignLayout(
    "clip",
    "CLIP in a folder of transformers",
    "stable-diffusion",
    (
        ForeignModule(
            prefix="",
            role="encoders",
            of=("text",),
            kind=ClipTextConfig,
            table=encoders.clip_text_published,
            signs=signs_of(f"text_model.{TOKENS}", "text_projection.weight"),
            file="model",
            fits=lambda config: getattr(config, "projection", True),
            misfit="this model's text encoder is Stable Diffusion's, without the projection",
            files=(CLIP_TOKENIZER,),
            description=encoders.CLIP,
            describe=encoders.clip_config,
        ),
        ForeignModule(
            prefix="",
            role="encoders",
            of=VISION,
            kind=ClipVisionConfig,
            table=encoders.clip_vision_published,
            signs=signs_of("vision_model.embeddings.class_embedding", "visual_projection.weight"),
            file="model",
            description=encoders.CLIP,
            describe=encoders.clip_config,
        ),
    ),
    own=encoders.clip_model,
    whole="CLIPModel",
)

CLAP = ForeignLayout(
    "clap",
    "CLAP in a folder of transformers",
    "release",
    (
        ForeignModule(
            prefix="",
            role="encoders",
            of=("audio",),
            kind=ClapAudioConfig,
            table=encoders.clap_audio_published,
            signs=signs_of("audio_projection.linear1.weight"),
            file="model",
            description=encoders.CLAP,
            describe=encoders.clap_audio_config,
        ),
    ),
    own=encoders.clap_model,  # nearly all have other sizes than the released CoDi's
    whole="ClapModel",
)

OPTIMUS = ForeignLayout(
    "optimus",
    "OPTIMUS in two files",
    "release",
    (
        ForeignModule(
            prefix="",
            role="codecs",
            of=("text",),
            kind=OptimusConfig,
            table=_alone(codecs.optimus_encoder),
            signs=signs_of("embeddings.word_embeddings.weight", "linear.weight"),
            file="encoder/pytorch_model",
            files=(BERT_TOKENIZER,),
        ),
        ForeignModule(
            prefix="",
            role="codecs",
            of=("text",),
            kind=OptimusConfig,
            table=_alone(codecs.optimus_decoder),
            signs=signs_of("transformer.wte.weight", "transformer.linear_emb.weight"),
            file="decoder/pytorch_model",
            files=(GPT2_TOKENIZER,),
        ),
    ),
)

OPTIMUS_WHOLE = ForeignLayout(
    "optimus-whole",
    "OPTIMUS in one file",
    "release",
    (replace(_IN_CODI["optimus.", ("text",)], prefix="", file="optimus"),),
)
"""As its authors' training stores it, under `model_state_dict`."""

LAYOUTS: tuple[ForeignLayout, ...] = (
    RELEASED,
    VERSATILE,
    SD_LDM,
    SD_LDM_BARE_TEXT,
    SD_LDM_AUTOENCODER,
    SD_DIFFUSERS,
    SD_OLD_DIFFUSERS,
    SD_BARE_TEXT,
    AUDIOLDM_LDM,
    AUDIOLDM_DIFFUSERS,
    CLIP,
    CLAP,
    OPTIMUS,
    OPTIMUS_WHOLE,
)
"""All layouts. Of two that recognise as many modules in a file, the first is taken."""

RELATIVES: tuple[Relative, ...] = stable_diffusion.RELATIVES
"""Files of other models that look like one of a layout, and are refused before any is sought."""

CHECKS: tuple[Check, ...] = (
    *check_unets.CHECKS,
    *check_sampling.CHECKS,
    *check_codecs.CHECKS,
    *check_encoders.CHECKS,
)
"""How goldens are run, for `codi verify`; the first that recognises one runs it."""
