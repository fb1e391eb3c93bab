"""Tables of codecs: the released CoDi, Stable Diffusion, AudioLDM, HiFi-GAN and OPTIMUS.

Every table is a function of the configuration of our part and of the prefix that its names have in
the foreign checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.mel import MelCodecConfig
from codi.codecs.optimus import OptimusConfig
from codi.codecs.vocoder import SLOPE, VocoderConfig
from codi.convert.rules import POINTWISE_2D, SAME, TRANSPOSED, Layout, Rule, Table, below


@dataclass(frozen=True)
class _AutoencoderNames:
    """How a code names the modules of the autoencoder.

    `{half}` is encoder or decoder, `{level}` counts from the largest maps and `{step}` from those
    that come first, `{block}` within a level.
    """

    down: str
    down_attention: str
    downsample: str
    up: str
    up_attention: str
    upsample: str
    middle: tuple[str, str, str]
    norm_out: str
    skip: str
    attention: tuple[str, str, str, str, str]
    projections: Layout


LDM = _AutoencoderNames(
    down="encoder.down.{level}.block.{block}",
    down_attention="encoder.down.{level}.attn.{block}",
    downsample="encoder.down.{level}.downsample",
    up="decoder.up.{level}.block.{block}",
    up_attention="decoder.up.{level}.attn.{block}",
    upsample="decoder.up.{level}.upsample",
    middle=("{half}.mid.block_1", "{half}.mid.attn_1", "{half}.mid.block_2"),
    norm_out="{half}.norm_out",
    skip="nin_shortcut",
    attention=("norm", "q", "k", "v", "proj_out"),
    projections=POINTWISE_2D,
)
"""Of the latent diffusion code, which the released CoDi keeps."""

DIFFUSERS = _AutoencoderNames(
    down="encoder.down_blocks.{step}.resnets.{block}",
    down_attention="encoder.down_blocks.{step}.attentions.{block}",
    downsample="encoder.down_blocks.{step}.downsamplers.0",
    up="decoder.up_blocks.{step}.resnets.{block}",
    up_attention="decoder.up_blocks.{step}.attentions.{block}",
    upsample="decoder.up_blocks.{step}.upsamplers.0",
    middle=(
        "{half}.mid_block.resnets.0",
        "{half}.mid_block.attentions.0",
        "{half}.mid_block.resnets.1",
    ),
    norm_out="{half}.conv_norm_out",
    skip="conv_shortcut",
    attention=("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    projections=SAME,
)
"""Of the `diffusers` library."""

OLD_DIFFUSERS = _AutoencoderNames(
    **(vars(DIFFUSERS) | {"attention": ("group_norm", "query", "key", "value", "proj_attn")})
)
"""Of the files of its older versions, as most of Stable Diffusion 1 are."""


def _autoencoder_rules(c: AutoencoderKLConfig, names: _AutoencoderNames) -> Iterator[Rule]:
    last = len(c.multipliers) - 1
    block = (
        Rule("norm_in", "norm1"),
        Rule("conv_in", "conv1"),
        Rule("norm_out", "norm2"),
        Rule("conv_out", "conv2"),
        Rule("skip", names.skip),
    )

    at = 1
    yield Rule("encoder.0", "encoder.conv_in")
    for level in range(last + 1):
        for i in range(c.depth):
            foreign = names.down.format(level=level, step=level, block=i)
            yield from below(f"encoder.{at}", foreign, block)
            at += 1
            if level in c.attention_levels:
                foreign = names.down_attention.format(level=level, step=level, block=i)
                yield from _attention_rules(f"encoder.{at}", foreign, names)
                at += 1
        if level < last:
            yield Rule(f"encoder.{at}", names.downsample.format(level=level, step=level))
            at += 1
    yield from _middle_rules(c, names, block, "encoder", at)
    yield Rule(f"encoder.{at + 1}", names.norm_out.format(half="encoder"))
    yield Rule(f"encoder.{at + 3}", "encoder.conv_out")

    yield Rule("decoder.0", "decoder.conv_in")
    yield from _middle_rules(c, names, block, "decoder", 1)
    at = 2
    for step, level in enumerate(reversed(range(last + 1))):
        for i in range(c.depth + 1):
            yield from below(
                f"decoder.{at}", names.up.format(level=level, step=step, block=i), block
            )
            at += 1
            if level in c.attention_levels:
                foreign = names.up_attention.format(level=level, step=step, block=i)
                yield from _attention_rules(f"decoder.{at}", foreign, names)
                at += 1
        if level > 0:
            yield Rule(f"decoder.{at}", names.upsample.format(level=level, step=step))
            at += 1
    yield Rule(f"decoder.{at}", names.norm_out.format(half="decoder"))
    yield Rule(f"decoder.{at + 2}", "decoder.conv_out")

    if c.quant_convolutions:
        yield Rule("quant", "quant_conv")
        yield Rule("post_quant", "post_quant_conv")


def _middle_rules(
    c: AutoencoderKLConfig, names: _AutoencoderNames, block: tuple[Rule, ...], half: str, at: int
) -> Iterator[Rule]:
    first, attention, second = (name.format(half=half) for name in names.middle)
    yield from below(f"{half}.{at}.0", first, block)
    if c.middle_attention:
        yield from _attention_rules(f"{half}.{at}.1", attention, names)
    yield from below(f"{half}.{at}.{2 if c.middle_attention else 1}", second, block)


def _attention_rules(ours: str, foreign: str, names: _AutoencoderNames) -> Iterator[Rule]:
    norm, *projections = names.attention
    yield Rule(f"{ours}.norm", f"{foreign}.{norm}")
    for mine, theirs in zip(("to_q", "to_k", "to_v", "to_out"), projections, strict=True):
        yield from _projection(f"{ours}.attention.{mine}", f"{foreign}.{theirs}", names.projections)


def _projection(ours: str, foreign: str, layout: Layout) -> Iterator[Rule]:
    """Yield the rules of a linear layer here whose weight has another layout there."""
    yield Rule(f"{ours}.weight", f"{foreign}.weight", layout)
    yield Rule(f"{ours}.bias", f"{foreign}.bias")


TRAINING = {"loss.*": "the discriminator and the losses of training"}


def _at(prefix: str, reasons: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}.{glob}" if prefix else glob: why for glob, why in reasons.items()}


def autoencoder_kl(
    config: AutoencoderKLConfig, prefix: str = "", names: _AutoencoderNames = LDM
) -> Table:
    """Return the table of an autoencoder in a layout.

    Args:
        config: ours, with `quant_convolutions` and `attention_bias` as there.
        prefix: "autokl" in the released CoDi, "first_stage_model" in checkpoints of Stable
            Diffusion, none in folders of diffusers.
        names: `LDM` for the first two, `DIFFUSERS` or `OLD_DIFFUSERS` for folders.
    """
    rules = below("", prefix, _autoencoder_rules(config, names))
    return Table(rules, unused=_at(prefix, TRAINING))


def autoencoder_kl_config(config: AutoencoderKLConfig) -> dict[str, object]:
    """Return the `config.json` with which `diffusers` loads what it stores."""
    c = config
    attends = ["Attn" if level in c.attention_levels else "" for level in range(len(c.multipliers))]
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [c.channels * multiplier for multiplier in c.multipliers],
        "down_block_types": [f"{attn}DownEncoderBlock2D" for attn in attends],
        "in_channels": c.in_channels,
        "latent_channels": c.latent_channels,
        "layers_per_block": c.depth,
        "norm_num_groups": c.groups,
        "out_channels": c.in_channels,
        "scaling_factor": 1.0 if c.scale_factor is None else c.scale_factor,
        "up_block_types": [f"{attn}UpDecoderBlock2D" for attn in reversed(attends)],
    }


def _vocoder_rules(c: VocoderConfig, upsample: str) -> Iterator[Rule]:
    yield Rule("conv_in", "conv_pre")
    yield Rule("conv_out", "conv_post")
    for i in range(len(c.upsample)):
        yield Rule(f"upsample.{i}", f"{upsample}.{i}")
        for k in range(len(c.kernels)):
            foreign = f"resblocks.{i * len(c.kernels) + k}"
            yield Rule(f"blocks.{i}.{k}.dilated", f"{foreign}.convs{'1' if c.paired else ''}")
            if c.paired:
                yield Rule(f"blocks.{i}.{k}.plain", f"{foreign}.convs2")


SPEECH_T5 = dict.fromkeys(
    ("mean", "scale"), "statistics of spectrograms, applied only where normalize_before is set"
)


def mel_codec(config: MelCodecConfig, prefix: str = "") -> Table:
    """Return the table of AudioLDM's autoencoder with its vocoder.

    `prefix` is "audioldm" in the released CoDi, and "first_stage_model" in AudioLDM's own files.
    """
    rules = (
        *below("autoencoder", prefix, _autoencoder_rules(config.autoencoder, LDM)),
        *below("vocoder", f"{prefix}.vocoder".strip("."), _vocoder_rules(config.vocoder, "ups")),
    )
    constants = {"fn_STFT.*": "window, Fourier and mel bases, computed from the settings here"}
    return Table(rules, unused=_at(prefix, TRAINING | constants))


def vocoder(config: VocoderConfig, prefix: str = "", upsample: str = "ups") -> Table:
    """Return the table of a HiFi-GAN generator of its authors' code, its weight norm undone."""
    return Table(below("", prefix, _vocoder_rules(config, upsample)))


def vocoder_config(config: VocoderConfig) -> dict[str, object]:
    """Return the `config.json` with which `transformers` loads it as a `SpeechT5HifiGan`."""
    c = config
    return {
        "architectures": ["SpeechT5HifiGan"],
        "leaky_relu_slope": SLOPE,
        "model_in_dim": c.bins,
        "model_type": "hifigan",
        "normalize_before": False,
        "resblock_dilation_sizes": [list(dilations) for dilations in c.dilations_by_kernel],
        "resblock_kernel_sizes": list(c.kernels),
        "upsample_initial_channel": c.channels,
        "upsample_kernel_sizes": list(c.upsample_kernels),
        "upsample_rates": list(c.upsample),
    }


BERT_LAYER = (
    Rule("attention.to_q", "attention.self.query"),
    Rule("attention.to_k", "attention.self.key"),
    Rule("attention.to_v", "attention.self.value"),
    Rule("attention.to_out", "attention.output.dense"),
    Rule("attention_norm", "attention.output.LayerNorm"),
    Rule("to_hidden", "intermediate.dense"),
    Rule("to_out", "output.dense"),
    Rule("norm", "output.LayerNorm"),
)

GPT2_LAYER = (
    Rule("norm_in", "ln_1"),
    *_projection("to_qkv", "attn.c_attn", TRANSPOSED),
    *_projection("to_out", "attn.c_proj", TRANSPOSED),
    Rule("norm_out", "ln_2"),
    *_projection("to_hidden", "mlp.c_fc", TRANSPOSED),
    *_projection("from_hidden", "mlp.c_proj", TRANSPOSED),
)


def bert_rules(layers: int) -> Iterator[Rule]:
    """Yield the rules of `codi.codecs.bert.Bert` and BERT of transformers."""
    yield Rule("tokens", "embeddings.word_embeddings")
    yield Rule("positions", "embeddings.position_embeddings")
    yield Rule("segments", "embeddings.token_type_embeddings")
    yield Rule("norm", "embeddings.LayerNorm")
    yield Rule("pooler", "pooler.dense")
    for i in range(layers):
        yield from below(f"layers.{i}", f"encoder.layer.{i}", BERT_LAYER)


def gpt2_rules(layers: int) -> Iterator[Rule]:
    """Yield the rules of `codi.codecs.gpt2.GPT2` and GPT-2 of transformers."""
    yield Rule("tokens", "wte")
    yield Rule("positions", "wpe")
    yield Rule("norm", "ln_f")
    for i in range(layers):
        yield from below(f"layers.{i}", f"h.{i}", GPT2_LAYER)


BERT_UNUSED = {"embeddings.position_ids": "the numbers 0, 1, 2 ..."}
GPT2_UNUSED = {
    "lm_head.weight": "the same tensor as the token embedding, transformer.wte.weight",
    "transformer.h.*.attn.bias": "the causal mask",
    "transformer.h.*.attn.masked_bias": "what the causal mask fills with",
}


def _encoder_rules(c: OptimusConfig) -> Iterator[Rule]:
    yield from below("encoder", "", bert_rules(c.encoder_layers))
    yield Rule("to_moments", "linear")


def _decoder_rules(c: OptimusConfig) -> Iterator[Rule]:
    yield from below("decoder", "transformer", gpt2_rules(c.decoder_layers))
    yield Rule("latent_memory", "transformer.linear")
    yield Rule("latent_offset", "transformer.linear_emb")


def optimus(config: OptimusConfig, prefix: str = "") -> Table:
    """Return the table of both halves of OPTIMUS in one file; `prefix` is "optimus" in CoDi's."""
    encoder, decoder = (f"{prefix}.{half}".strip(".") for half in ("encoder", "decoder"))
    return Table(
        (
            *below("", encoder, _encoder_rules(config)),
            *below("", decoder, _decoder_rules(config)),
        ),
        unused=_at(encoder, BERT_UNUSED) | _at(decoder, GPT2_UNUSED),
    )


def optimus_encoder(config: OptimusConfig, prefix: str = "") -> Table:
    """Return the table of the encoder alone, as OPTIMUS's own checkpoints have it."""
    return Table(
        below("", prefix, _encoder_rules(config)),
        unused=_at(prefix, BERT_UNUSED),
        fresh={"decoder.*": "in the file of the decoder", "latent_*": "in the file of the decoder"},
    )


def optimus_decoder(config: OptimusConfig, prefix: str = "") -> Table:
    """Return the table of the decoder alone, as OPTIMUS's own checkpoints have it."""
    return Table(
        below("", prefix, _decoder_rules(config)),
        unused=_at(prefix, GPT2_UNUSED),
        fresh={"encoder.*": "in the file of the encoder", "to_moments.*": "of the encoder"},
    )
