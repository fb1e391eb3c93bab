"""How the goldens of codecs are run: AutoKL, AudioLDM's autoencoder with its vocoder, OPTIMUS.

Configurations are read from the golden's JSON, so any other size of the same form is run too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
    known = {"double_z": True, "out_ch": d["in_channels"]}
    for key, value in known.items():
        if d.get(key) not in (value, None):
            raise ConfigError(f"ddconfig.{key} = {d[key]}; the autoencoder here has {value} only")
    latent = about["config"].get("embed_dim", d["z_channels"])
    return AutoencoderKLConfig(
        in_channels=d["in_channels"],
        latent_channels=latent,
        inner_channels=None if d["z_channels"] == latent else d["z_channels"],
        channels=d["ch"],
        multipliers=tuple(d["ch_mult"]),
        depth=d["num_res_blocks"],
        attention_levels=_attention_levels(d),
        attention_bias=True,
        asymmetric_padding=True,
        quant_convolutions=True,
        norm_eps=1e-6,
        group_channels=1,
        scale_factor=scales[0] if scales else 1.0,
    )


def _attention_levels(d: dict[str, Any]) -> tuple[int, ...]:
    """Return the levels whose maps have a side that `attn_resolutions` names."""
    sides = d.get("attn_resolutions") or ()
    return tuple(
        level for level in range(len(d["ch_mult"])) if sides and d["resolution"] >> level in sides
    )


@torch.no_grad()
def run_autoencoder(golden: Golden) -> dict[str, Tensor]:
    """Encode the golden's pictures or clips and decode its latents, or whichever it has."""
    config = released_autoencoder(golden.about)
    idle = _idle(golden, x=("encoder", "quant"), z=("decoder", "post_quant"))
    codec = golden.filled(config.build(), autoencoder_kl(config), golden.weights(), idle)
    made: dict[str, Tensor] = {}
    if golden.has("x"):
        mean, log_variance = _of_clips(codec.posterior, golden["x"])
        made |= {"out_mean": mean, "out_logvar": log_variance}
    if golden.has("z"):
        made["out_dec"] = _of_clips(codec.decode_raw, golden["z"])
    return made


def _of_clips(work: Callable[[Tensor], Any], x: Tensor) -> Any:
    """Return what is made of clips (B, C, F, H, W), or of pictures, without the axis of time."""
    if x.ndim == 5:
        return work(x)
    made = work(x[:, :, None])
    return made[:, :, 0] if isinstance(made, Tensor) else [one[:, :, 0] for one in made]


def _idle(golden: Golden, **modules: tuple[str, ...]) -> list[str]:
    """Return the modules that are not called where the golden lacks the input of their name."""
    return [name for key, names in modules.items() if not golden.has(key) for name in names]


# --- AudioLDM's autoencoder and its vocoder ---

_PAIRED = {"1": True, "2": False}
"""HiFi-GAN's kinds of residual blocks -> whether a plain convolution follows each dilated one."""


def released_vocoder(about: dict[str, Any]) -> VocoderConfig:
    """Return our configuration of HiFi-GAN by its own names.

    Raises:
        ConfigError: a generator of another kind.
    """
    kind = str(about.get("resblock", "1"))
    if kind not in _PAIRED:
        raise ConfigError(f"hifigan.resblock = {kind!r}; the vocoder here has {', '.join(_PAIRED)}")
    return VocoderConfig(
        bins=about["num_mels"],
        channels=about["upsample_initial_channel"],
        upsample=tuple(about["upsample_rates"]),
        upsample_kernels=tuple(about["upsample_kernel_sizes"]),
        kernels=tuple(about["resblock_kernel_sizes"]),
        dilations=tuple(tuple(each) for each in about["resblock_dilation_sizes"]),
        paired=_PAIRED[kind],
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
    autoencoder = released_autoencoder(about)
    # How long a spectrogram is cut, only what is expected of it says.
    columns = [
        golden[name].shape[2] * factor
        for name, factor in (("out_fbank", 1), ("out_mean", autoencoder.factor))
        if golden.has(name)
    ]
    heard = golden.has("wav") and bool(columns)
    config = MelCodecConfig(
        mel=released_mel(about["hifigan"], columns[0] if heard else 1),
        autoencoder=autoencoder,
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
    """Return our configuration of OPTIMUS by the names of its two halves."""
    encoder, decoder = about["encoder_config"], about["decoder_config"]
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
        decoder_width=decoder["n_embd"],
        decoder_heads=decoder["n_head"],
        scale_factor=about["text_scale_factor"],
    )


@torch.no_grad()
def run_optimus(golden: Golden) -> dict[str, Tensor]:
    """Encode the golden's tokens, write its latents greedily, and score what it has written.

    A golden of one half has the tokens and the encoder's weights only, or the latents and the
    decoder's. Latents of which nothing is expected are left alone.
    """
    written, scored = (_numbered(golden, start) for start in ("out_greedy_", "out_logits_"))
    decodes = golden.has("z") and bool(written or scored)
    lengths = [len(ids) for ids in written.values()]
    lengths += [scores.shape[1] for scores in scored.values()]
    config = replace(
        released_optimus(golden.about), writing="greedy", length=max(lengths, default=30)
    )
    weights = golden.weights()
    lacking = {
        name: (3 * (config.decoder_width or config.width),)
        for i in range(config.decoder_layers)
        if (name := f"decoder.transformer.h.{i}.attn.c_attn.bias") not in weights and decodes
    }
    if lacking:
        seeds = golden.about.get("seeds", [])
        weights |= drawn_again(golden, "decoder.", lacking, seed=seeds[-1] if seeds else 0)
    idle = _idle(golden, ids=("encoder", "to_moments"))
    idle += () if decodes else ("decoder", "latent_offset", "latent_memory")
    codec = golden.filled(config.build(), optimus(config), weights, idle)
    outputs: dict[str, Tensor] = {}
    if golden.has("ids"):
        sequence, pooled = codec.encoder(golden["ids"], golden["ids"] > 0)
        mean, log_variance = codec.moments(pooled)
        outputs |= {"out_seq": sequence, "out_pooled": pooled}
        outputs |= {"out_mu": mean, "out_logvar": log_variance}
    if not decodes:
        return outputs
    latents = golden["z"]
    rows = codec.write(latents)
    for i in sorted(written.keys() | scored.keys()):
        expected = written.get(i)
        # Scores are of the tokens that were written there, or of ours where it does not tell.
        ids = rows[i, : scored[i].shape[1]] if expected is None else expected
        outputs[f"out_greedy_{i}"] = rows[i, : len(ids)]
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


def _numbered(golden: Golden, start: str) -> dict[int, Tensor]:
    """Return the tensors whose names are `start` and a number, by the number."""
    numbers = {name.removeprefix(start): name for name in golden.tensors if name.startswith(start)}
    return {int(n): golden.expected(name) for n, name in numbers.items() if n.isdecimal()}


# --- its tokenizers ---

Differences = Iterator[str]
"""What came out otherwise, a line each."""


def run_tokenizers(golden: Golden) -> dict[str, Words]:
    """Compare the golden's cases, which are texts: there is no tensor to return.

    Cases of tokens need vocabularies: folders `bert-base-cased` and `gpt2` beside the golden.
    Without them these cases are not checked.
    """
    compared = {}
    for key, cases in _CASES.items():
        if key not in golden.about:
            continue
        place = golden.path.parent / cases.folder
        if not place.is_dir():
            compared[key] = Words(unchecked=f"needs {cases.files} in {place}")
            continue
        try:
            differing = list(cases.differences(golden.about, place))
        except ConfigError as error:  # a vocabulary that is damaged, or another's
            differing = [str(error)]
        compared[key] = Words(differing="; ".join(differing))
    return compared


def _sentence_differences(about: dict[str, Any], _folder: Path) -> Differences:
    for given, expected in about["remove_duplicate_word"]:
        yield from _differ(f"without repetitions, {given!r}", without_repetitions(given), expected)


def _word_piece_differences(about: dict[str, Any], folder: Path) -> Differences:
    pieces = load_word_pieces(str(folder))
    special = about.get("bert_special", {})
    known = {token: pieces.library.token_to_id(token) for token in special}
    yield from _differ("BERT's ids of special tokens", known, special)
    for case in about["bert"]:
        found = pieces.encode([case["text"]], 512)[0].tolist()
        yield from _differ(f"BERT's ids of {case['text']!r}", found, case["ids"])


def _byte_pair_differences(about: dict[str, Any], folder: Path) -> Differences:
    special = about.get("special", {})
    vocabulary = max(special.values()) + 1 if special else OptimusConfig().decoder_vocabulary
    pairs = load_byte_pairs(str(folder), vocabulary)
    found = {token: number for number, token in pairs.special.items()}
    yield from _differ("ids of special tokens", found, special or found)
    begin = about.get("encode(<BOS>)", [pairs.begin])
    yield from _differ("GPT-2's ids of '<BOS>'", [pairs.begin], begin)
    for case in about["gpt2"]:
        sentence = case["text"].removeprefix("<BOS> ").removesuffix(" <EOS>")
        ids = pairs.encode([sentence], 1024)[0].tolist()
        yield from _differ(f"GPT-2's ids of {case['text']!r}", ids, case["ids"])
        if "decoded" in case:
            text = pairs.decode(case["ids"])
            yield from _differ(f"the text of {case['ids']}", text, case["decoded"])


@dataclass(frozen=True)
class _Cases:
    """Cases of texts under one key of a golden's JSON.

    Attributes:
        differences: (JSON, folder of the vocabulary) -> what comes out otherwise.
        folder, files: which files they need, and the folder beside the golden that holds them.
    """

    differences: Callable[[dict[str, Any], Path], Differences]
    folder: str = "."
    files: str = ""


_CASES = {
    "remove_duplicate_word": _Cases(_sentence_differences),
    "bert": _Cases(_word_piece_differences, "bert-base-cased", "BERT's vocab.txt"),
    "gpt2": _Cases(_byte_pair_differences, "gpt2", "GPT-2's vocab.json and merges.txt"),
}
"""Key of a golden's JSON -> the cases that stand there."""


def _differ(what: str, found: object, expected: object) -> Differences:
    if found != expected:
        yield f"{what}: expected {expected!r}, got {found!r}"


def _is_autoencoder(about: dict[str, Any]) -> bool:
    config = about.get("config")
    return isinstance(config, dict) and "ddconfig" in config


CHECKS: tuple[Check, ...] = (
    Check(lambda about: _is_autoencoder(about) and "hifigan" not in about, run_autoencoder),
    Check(lambda about: _is_autoencoder(about) and "hifigan" in about, run_audio),
    Check(lambda about: {"encoder_config", "decoder_config"} <= about.keys(), run_optimus),
    Check(lambda about: any(isinstance(about.get(key), list) for key in _CASES), run_tokenizers),
)
"""Every form of golden of a codec."""
