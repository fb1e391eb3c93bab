"""Stable Diffusion 1 in every layout that it is found in, and its relatives that are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.convert import codecs, configs, encoders, sampling, unets
from codi.convert.encoders import TOKENS
from codi.convert.kept_files import CLIP_TOKENIZER
from codi.convert.latent_diffusion import (
    AUTOENCODER_CLASS,
    LATENT_DIFFUSION,
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
    Shape,
    Signs,
    Skip,
    signs_of,
)
from codi.encoders.clip import ClipTextConfig
from codi.unets.unet import UNetConfig

NO_PROJECTION = (
    "a text encoder without the projection into the space of prompts; "
    "openai/clip-vit-large-patch14 is the whole one"
)

# --- Stable Diffusion 1 ---


def _reads_states(config: Any) -> bool:
    return isinstance(config, ClipTextConfig) and not config.projection


def _stable_diffusion_text(
    prefix: str, file: str, sign: str, table: Callable[[ClipTextConfig], Table]
) -> ForeignModule:
    """Return Stable Diffusion's text encoder: CLIP's, without the projection."""
    return ForeignModule(
        prefix=prefix,
        role="encoders",
        of=("text",),
        kind=ClipTextConfig,
        table=table,
        signs=signs_of(sign, absent=("text_projection.weight",)),
        file=file,
        fits=_reads_states,
        misfit=NO_PROJECTION,
        files=(CLIP_TOKENIZER,),
        description=encoders.CLIP_TEXT,
        describe=None if prefix else encoders.clip_text_config,  # a folder of its own
    )


_READER = "cond_stage_model.transformer."
_KEYS = "transformer_blocks.0.attn2.to_k.weight"
_MEND = "give weights of Stable Diffusion 1 (such as v1-5)"
_SECOND = f"is of Stable Diffusion 2, whose prompts are another text encoder's; {_MEND}"
_XL = f"is of Stable Diffusion XL, whose diffuser reads two text encoders; {_MEND}"


def _relatives(first: str, prompt: str, added: str, steering: str) -> tuple[Relative, ...]:
    """Return the relatives of Stable Diffusion 1, told by their diffusers.

    Args:
        first: name of the convolution that reads the latent.
        prompt: of the first layer that reads the prompt.
        added: of a layer that SDXL has for what it knows besides.
        steering: of one that a ControlNet has.
    """
    four: Shape = (None, 4, None, None)
    reads = "the diffuser here reads the latent's 4 alone"
    return (
        Relative(signs_of(steering), f"is a ControlNet, which steers another diffuser; {_MEND}"),
        Relative(
            Signs({first: (None, 9, None, None)}),
            "is of Stable Diffusion for inpainting, whose diffuser reads 9 channels (latent, mask "
            f"and masked picture), and {reads}; {_MEND}",
        ),
        Relative(
            Signs({first: (320, 8, None, None)}),
            "is of InstructPix2Pix, whose diffuser reads 8 channels (latent and given picture), "
            f"and {reads}; {_MEND}",
        ),
        Relative(signs_of(added), _XL),
        Relative(Signs({first: four, prompt: (None, 1024)}), _SECOND),
        Relative(Signs({first: (None, 5, None, None)}), _SECOND),
    )


RELATIVES = (
    *_relatives(
        first=f"{unets.MODEL}.input_blocks.0.0.weight",
        prompt=f"{unets.MODEL}.input_blocks.1.1.{_KEYS}",
        added=f"{unets.MODEL}.label_emb.0.0.weight",
        steering="control_model.input_hint_block.0.weight",
    ),
    Relative(signs_of("cond_stage_model.model.token_embedding.weight"), _SECOND),
    Relative(signs_of("conditioner.embedders.0.transformer.text_model.final_layer_norm.bias"), _XL),
    *_relatives(
        first="conv_in.weight",
        prompt=f"down_blocks.0.attentions.0.{_KEYS}",
        added="add_embedding.linear_1.weight",
        steering="controlnet_cond_embedding.conv_in.weight",
    ),
)
"""Those in one file, and those in folders of diffusers."""

SD_LDM = ForeignLayout(
    "sd-ldm",
    "Stable Diffusion 1 in one file",
    "stable-diffusion",
    (
        ForeignModule(
            prefix=f"{unets.MODEL}.",
            role="diffusers",
            of=VISION,
            kind=UNetConfig,
            table=lambda config: unets.stable_diffusion(config, ""),
            signs=signs_of("time_embed.0.weight", input_blocks__0__0__weight=4),
            file="stable_diffusion",
            begins=("environments",),
            sampling=sampling.sampling_in_training_file,
        ),
        ForeignModule(
            prefix="first_stage_model.",
            role="codecs",
            of=VISION,
            kind=AutoencoderKLConfig,
            table=codecs.autoencoder_kl,
            signs=signs_of("quant_conv.weight", encoder__conv_in__weight=3),
            file="stable_diffusion",
            description=configs.TRAINED_AUTOENCODER,
        ),
        _stable_diffusion_text(
            _READER,
            "stable_diffusion",
            f"text_model.{TOKENS}",
            encoders.clip_text_published,
        ),
    ),
    unused=LATENT_DIFFUSION,
)

SD_LDM_BARE_TEXT = replace(
    SD_LDM,
    name="sd-ldm-bare-text",
    summary="Stable Diffusion 1 in one file, its text encoder's names without text_model",
    modules=(
        *SD_LDM.modules[:2],
        _stable_diffusion_text(_READER, "stable_diffusion", TOKENS, encoders.clip_text_bare),
    ),
)
"""As many fine-tuned ones are."""

SD_LDM_AUTOENCODER = ForeignLayout(
    "sd-ldm-autoencoder",
    "Stable Diffusion 1's autoencoder alone in one file",
    "stable-diffusion",
    (
        replace(
            SD_LDM.modules[1],
            prefix="",
            signs=signs_of(
                "quant_conv.weight", "encoder.mid.block_1.norm1.weight", encoder__conv_in__weight=3
            ),
            file="autoencoder",
            caution="such a file does not tell what latents are multiplied by (scale_factor); that "
            "of the model is taken, and SDXL's autoencoder has another, 0.13025",
        ),
    ),
    unused=LATENT_DIFFUSION,
)
"""As fine-tuned ones (vae-ft-mse) are."""


def _autoencoder_folder(names: Any, query: str) -> ForeignModule:
    """Return Stable Diffusion's `vae` folder, by how its attention is called."""
    return ForeignModule(
        prefix="",
        role="codecs",
        of=VISION,
        kind=AutoencoderKLConfig,
        table=lambda config: codecs.autoencoder_kl(config, names=names),
        signs=signs_of(
            f"encoder.mid_block.attentions.0.{query}.weight", encoder__conv_in__weight=3
        ),
        file="vae/diffusion_pytorch_model",
        fits=has_one_width,
        misfit=WIDTHS,
        description=configs.AUTOENCODER,
        describe=codecs.autoencoder_kl_config,
    )


_UNET_FOLDER = ForeignModule(
    prefix="",
    role="diffusers",
    of=VISION,
    kind=UNetConfig,
    table=unets.stable_diffusion_diffusers,
    signs=signs_of("time_embedding.linear_1.weight", conv_in__weight=4),
    file="unet/diffusion_pytorch_model",
    begins=("environments",),
    description=configs.UNET,
    sampling=sampling.sampling_beside,
    describe=unets.stable_diffusion_config,
)

_SD_PIPELINE = ForeignPipeline(
    "StableDiffusionPipeline",
    {
        "unet": ("diffusers", "UNet2DConditionModel"),
        "text_encoder": ("transformers", "CLIPTextModel"),
        **AUTOENCODER_CLASS,
    },
)

SD_DIFFUSERS = ForeignLayout(
    "sd-diffusers",
    "Stable Diffusion 1 in a folder of diffusers",
    "stable-diffusion",
    (
        _UNET_FOLDER,
        _autoencoder_folder(codecs.DIFFUSERS, "to_q"),
        _stable_diffusion_text(
            "", "text_encoder/model", f"text_model.{TOKENS}", encoders.clip_text_published
        ),
    ),
    skips=(Skip(signs_of("concept_embeds"), "judges pictures, and makes none"),),
    pipeline=_SD_PIPELINE,
)

SD_BARE_TEXT = ForeignLayout(
    "sd-bare-text",
    "Stable Diffusion 1's text encoder as transformers 5 saves it",
    "stable-diffusion",
    (_stable_diffusion_text("", "text_encoder/model", TOKENS, encoders.clip_text_bare),),
)

SD_OLD_DIFFUSERS = ForeignLayout(
    "sd-old-diffusers",
    "Stable Diffusion 1 in a folder of an older diffusers",
    "stable-diffusion",
    (_UNET_FOLDER, _autoencoder_folder(codecs.OLD_DIFFUSERS, "query")),
    pipeline=_SD_PIPELINE,
)
