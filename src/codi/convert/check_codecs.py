"""How the goldens of codecs are run: AutoKL, AudioLDM's autoencoder with its vocoder, OPTIMUS.

Configurations are read from the golden's JSON, so any other size of the same form is run too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codi.audio import MelConfig, mel_filters
from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.mel import MelCodecConfig
from codi.codecs.optimus import OptimusConfig
from codi.codecs.vocabularies import load_byte_pairs, load_word_pieces, without_repetitions
from codi.codecs.vocoder import VocoderConfig
from codi.config import ConfigError
from codi.convert.codecs import autoencoder_kl, mel_codec, optimus
from codi.convert.golden import Check, Golden, Words

# --- AutoKL ---


def released_autoencoder(about: dict[str, Any]) -> AutoencoderKLConfig:
    """Return our configuration of an autoencoder by the released CoDi's names of its sizes.

    `about` is the golden's JSON, which says the scale of its latents beside its `config`.

    Raises:
        ConfigError: an autoencoder of another kind.
    """
    d = about["config"]["ddconfig"]
    scales = [value for name, value in about.items() if name.endswith("_scale_factor")]
    if d.get("attn_resolutions") or not d.get("double_z", True):
        raise ConfigError("this autoencoder attends outside its middle or has one moment only")
    return AutoencoderKLConfig(
        in_channels=d["in_channels"],
        latent_channels=about["config"].get("embed_dim", d["z_channels"]),
        channels=d["ch"],
        multipliers=tuple(d["ch_mult"]),
        depth=d["num_res_blocks"],
        attention_bias=True,
        asymmetric_padding=True,
        quant_convolutions=True,
        norm_eps=1e-6,
        group_channels=1,
        scale_factor=scales[0] if scales else 1.0,
    )


@torch.no_grad()
def run_autoencoder(golden: Golden) -> dict[str, Tensor]:
    """Encode the golden's pictures and decode its latents, or whichever it has."""
    config = released_autoencoder(golden.about)
    idle = _idle(golden, x=("encoder", "quant"), z=("decoder", "post_quant"))
    codec = golden.filled(config.build(), autoencoder_kl(config), golden.weights(), idle)
    made: dict[str, Tensor] = {}
    if golden.has("x"):
        mean, log_variance = codec.posterior(golden["x"][:, :, None])
        made |= {"out_mean": mean[:, :, 0], "out_logvar": log_variance[:, :, 0]}
    if golden.has("z"):
        made["out_dec"] = codec.decode_raw(golden["z"][:, :, None])[:, :, 0]
    return made


def _idle(golden: Golden, **modules: tuple[str, ...]) -> list[str]:
    """Return the modules that are not called where the golden lacks the input of their name."""
    return [name for key, names in modules.items() if not golden.has(key) for name in names]


# --- AudioLDM's autoencoder and its vocoder ---


def released_vocoder(about: dict[str, Any]) -> VocoderConfig:
    """Return our configuration of HiFi-GAN by its own names.

    Raises:
        ConfigError: a generator of another kind.
    """
    dilations = {tuple(each) for each in about["resblock_dilation_sizes"]}
    if str(about.get("resblock", "1")) != "1" or len(dilations) != 1:
        raise ConfigError("this vocoder has other residual blocks than HiFi-GAN's first kind")
    return VocoderConfig(
        bins=about["num_mels"],
        channels=about["upsample_initial_channel"],
        upsample=tuple(about["upsample_rates"]),
        upsample_kernels=tuple(about["upsample_kernel_sizes"]),
        kernels=tuple(about["resblock_kernel_sizes"]),
        dilations=dilations.pop(),
        overhang=True,
    )


def released_mel(about: dict[str, Any], columns: int) -> MelConfig:
    """Return AudioLDM's front end by HiFi-GAN's names of its sizes."""
    return MelConfig(
        sample_rate_hz=about["sampling_rate"],
        window=about["win_size"],
        hop=about["hop_size"],
        bins=about["num_mels"],
        low_hz=float(about["fmin"]),
        high_hz=float(about["fmax"]),
        centred_on="start",
        levelled=True,
        columns=columns,
    )


@torch.no_grad()
def run_audio(golden: Golden) -> dict[str, Tensor]:
    """Hear the golden's sounds, encode them, and decode its latents to sound: what it has of it."""
    about = golden.about
    heard = golden.has("wav") and golden.has("out_fbank")
    config = MelCodecConfig(
        mel=released_mel(about["hifigan"], golden["out_fbank"].shape[2] if heard else 1),
        autoencoder=released_autoencoder(about),
        vocoder=released_vocoder(about["hifigan"]),
        centre=0.0,
        spread=1.0,
    )
    idle = _idle(
        golden,
        wav=("autoencoder.encoder", "autoencoder.quant"),
        z=("autoencoder.decoder", "autoencoder.post_quant", "vocoder"),
    )
    codec = golden.filled(config.build(), mel_codec(config), golden.weights(), idle)
    made = {"mel_basis": mel_filters(config.mel)}
    if heard:
        spectrogram = codec.spectrogram(golden["wav"])
        mean, log_variance = codec.autoencoder.posterior(spectrogram[:, :, None])
        made["out_fbank"] = spectrogram
        made |= {"out_mean": mean[:, :, 0], "out_logvar": log_variance[:, :, 0]}
    if golden.has("z"):
        mel = codec.autoencoder.decode_raw(golden["z"][:, :, None])[:, :, 0]
        made |= {"out_mel": mel, "out_wave": codec.vocoder(mel)[:, None]}
    return made


# --- OPTIMUS ---


def released_optimus(about: dict[str, Any]) -> OptimusConfig:
    """Return our configuration of OPTIMUS by the names of its two halves.

    Raises:
        ConfigError: halves that do not fit together.
    """
    encoder, decoder = about["encoder_config"], about["decoder_config"]
    if encoder["hidden_size"] != decoder["n_embd"]:
        raise ConfigError("encoder and decoder have different widths; both need the same")
    if encoder["num_attention_heads"] != decoder["n_head"]:
        raise ConfigError("encoder and decoder have different numbers of heads; use the same")
    return OptimusConfig(
        encoder_vocabulary=encoder["vocab_size"],
        decoder_vocabulary=decoder["vocab_size"],
        encoder_positions=encoder["max_position_embeddings"],
        decoder_positions=decoder["n_positions"],
        latent_width=about["encoder_latent_size"],
        width=encoder["hidden_size"],
        heads=encoder["num_attention_heads"],
        hidden=encoder["intermediate_size"],
        encoder_layers=encoder["num_hidden_layers"],
        decoder_layers=decoder["n_layer"],
        scale_factor=about["text_scale_factor"],
    )


@torch.no_grad()
def run_optimus(golden: Golden) -> dict[str, Tensor]:
    """Encode the golden's tokens, write its latents greedily, and score what it has written.

    A golden of one half has the tokens and the encoder's weights only, or the latents and the
    decoder's.
    """
    written = [golden[name] for name in _numbered(golden, "out_greedy_")]
    length = max((len(ids) for ids in written), default=30)
    config = replace(released_optimus(golden.about), writing="greedy", length=length)
    weights = golden.weights()
    lacking = {
        name: (3 * config.width,)
        for i in range(config.decoder_layers)
        if (name := f"decoder.transformer.h.{i}.attn.c_attn.bias") not in weights
        and golden.has("z")
    }
    if lacking:
        seeds = golden.about.get("seeds", [])
        weights |= drawn_again(golden, "decoder.", lacking, seed=seeds[-1] if seeds else 0)
    idle = _idle(
        golden, ids=("encoder", "to_moments"), z=("decoder", "latent_offset", "latent_memory")
    )
    codec = golden.filled(config.build(), optimus(config), weights, idle)
    outputs: dict[str, Tensor] = {}
    if golden.has("ids"):
        sequence, pooled = codec.encoder(golden["ids"], golden["ids"] > 0)
        mean, log_variance = codec.moments(pooled)
        outputs |= {"out_seq": sequence, "out_pooled": pooled}
        outputs |= {"out_mu": mean, "out_logvar": log_variance}
    if not golden.has("z"):
        return outputs
    latents = golden["z"]
    for i, (ids, row) in enumerate(zip(written, codec.write(latents), strict=True)):
        outputs[f"out_greedy_{i}"] = row[: len(ids)]
        outputs[f"out_logits_{i}"] = codec.logits(latents[i : i + 1], ids[None])
    return outputs


def drawn_again(
    golden: Golden, prefix: str, lacking: Mapping[str, tuple[int, ...]], seed: int
) -> dict[str, Tensor]:
    """Return weights that a golden lacks, by drawing all of its weights below `prefix` again.

    The golden of OPTIMUS lost `attn.c_attn.bias` together with the causal masks, `attn.bias`. Its
    weights are random numbers, drawn in the order of their names from the seed that it says. Those
    it has prove it: drawn again, they have to be the same.

    Raises:
        ConfigError: they are not, so that what is lacking cannot be known.
    """
    known = {name: w for name, w in golden.weights().items() if name.startswith(prefix)}
    tied = f"{prefix}lm_head.weight"
    shapes = {name: tuple(w.shape) for name, w in known.items() if name != tied}
    shapes.update(lacking)
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name in sorted(shapes):
        normal = torch.randn(shapes[name], generator=generator)
        if normal.ndim > 1:
            weight = normal / normal[0].numel() ** 0.5
        else:
            weight = 0.1 * normal + (0.0 if name.endswith("bias") else 1.0)
        weight = weight.half().float()
        if name in lacking:
            drawn[name] = weight
        elif not torch.allclose(weight, known[name], atol=1e-4, rtol=1e-3):
            raise ConfigError(f"{golden.path}: lacks the weight {min(lacking)!r}")
    return drawn


def _numbered(golden: Golden, start: str) -> list[str]:
    names = [name for name in golden.tensors if name.startswith(start)]
    return sorted(names, key=lambda name: int(name.removeprefix(start)))


# --- its tokenizers ---


def run_tokenizers(golden: Golden) -> dict[str, Words]:
    """Compare the golden's cases, which are texts: there is no tensor to return.

    Cases of tokens need vocabularies: folders `bert-base-cased` and `gpt2` beside the golden.
    Without them these cases are not checked.

    Raises:
        ConfigError: a case that comes out differently.
    """
    about = golden.about
    for given, expected in about["remove_duplicate_word"]:
        _same(golden, f"without repetitions, {given!r}", without_repetitions(given), expected)
    compared = {"remove_duplicate_word": Words()}
    for key, (folder, files, compare) in _VOCABULARIES.items():
        place = golden.path.parent / folder
        if key not in about:
            continue
        if place.is_dir():
            compare(golden, place)
            compared[key] = Words()
        else:
            compared[key] = Words(f"needs {files} in {place}")
    return compared


def _compare_word_pieces(golden: Golden, folder: Path) -> None:
    pieces = load_word_pieces(str(folder))
    special = golden.about.get("bert_special", {})
    known = {token: pieces.library.token_to_id(token) for token in special}
    _same(golden, "BERT's ids of special tokens", known, special)
    for case in golden.about["bert"]:
        found = pieces.encode([case["text"]], 512)[0].tolist()
        _same(golden, f"BERT's ids of {case['text']!r}", found, case["ids"])


def _compare_byte_pairs(golden: Golden, folder: Path) -> None:
    special = golden.about["special"]
    pairs = load_byte_pairs(str(folder), max(special.values()) + 1)
    found = {token: number for number, token in pairs.special.items()}
    _same(golden, "ids of special tokens", found, special)
    begin = golden.about.get("encode(<BOS>)", [pairs.begin])
    _same(golden, "GPT-2's ids of '<BOS>'", [pairs.begin], begin)
    for case in golden.about["gpt2"]:
        sentence = case["text"].removeprefix("<BOS> ").removesuffix(" <EOS>")
        ids = pairs.encode([sentence], 1024)[0].tolist()
        _same(golden, f"GPT-2's ids of {case['text']!r}", ids, case["ids"])
        _same(golden, f"the text of {case['ids']}", pairs.decode(case["ids"]), case["decoded"])


_VOCABULARIES: dict[str, tuple[str, str, Callable[[Golden, Path], None]]] = {
    "bert": ("bert-base-cased", "BERT's vocab.txt", _compare_word_pieces),
    "gpt2": ("gpt2", "GPT-2's vocab.json and merges.txt", _compare_byte_pairs),
}
"""Cases of tokens -> the folder and the files that they need, and how they are compared."""


def _same(golden: Golden, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ConfigError(f"{golden.path}: {what}: expected {expected!r}, got {found!r}")


def _is_autoencoder(about: dict[str, Any]) -> bool:
    config = about.get("config")
    return isinstance(config, dict) and "ddconfig" in config


CHECKS: tuple[Check, ...] = (
    Check(lambda about: _is_autoencoder(about) and "hifigan" not in about, run_autoencoder),
    Check(lambda about: _is_autoencoder(about) and "hifigan" in about, run_audio),
    Check(lambda about: {"encoder_config", "decoder_config"} <= about.keys(), run_optimus),
    Check(lambda about: "remove_duplicate_word" in about, run_tokenizers),
)
"""Every form of golden of a codec."""
