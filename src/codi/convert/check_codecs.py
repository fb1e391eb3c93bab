"""How the goldens of codecs are run: AutoKL, AudioLDM's autoencoder with its vocoder, OPTIMUS.

Configurations are read from the golden's JSON, so any other size of the same form is run too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codi.audio import MelConfig, log_mel, mel_filters
from codi.codecs.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from codi.codecs.bert import ACTIVATIONS
from codi.codecs.optimus import OptimusConfig
from codi.codecs.vocabularies import load_byte_pairs, load_word_pieces, without_repetitions
from codi.codecs.vocoder import VocoderConfig
from codi.config import ConfigError
from codi.convert.codecs import autoencoder_kl, optimus, vocoder
from codi.convert.golden import Check, Golden, Made, Words

# --- AutoKL ---


def released_autoencoder(about: dict[str, Any]) -> AutoencoderKLConfig:
    """Return our configuration of an autoencoder by the released CoDi's names of its sizes.

    `about` is the golden's JSON, which says the scale of its latents beside its `config`.

    Raises:
        ConfigError: an autoencoder of another kind.
    """
    d = about["config"]["ddconfig"]
    scales = [value for name, value in about.items() if name.endswith("_scale_factor")]
    for key, values in {**_KNOWN, "out_ch": (d["in_channels"],)}.items():
        if d.get(key) not in (None, *values):
            said = " or ".join(str(value) for value in values)
            raise ConfigError(f"ddconfig.{key} = {d[key]}; the autoencoder here has {said} only")
    attends = d.get("attn_type") != "none"
    latent = about["config"].get("embed_dim", d["z_channels"])
    return AutoencoderKLConfig(
        in_channels=d["in_channels"],
        latent_channels=latent,
        inner_channels=None if d["z_channels"] == latent else d["z_channels"],
        channels=d["ch"],
        multipliers=_multipliers(d),
        depth=d["num_res_blocks"],
        middle_attention=attends,
        attention_levels=_attention_levels(d) if attends else (),
        attention_bias=True,
        asymmetric_padding=True,
        quant_convolutions=True,
        norm_eps=1e-6,
        group_channels=1,
        scale_factor=scales[0] if scales else 1.0,
    )


_KNOWN: dict[str, tuple[Any, ...]] = {
    "double_z": (True,),
    "resamp_with_conv": (True,),
    "attn_type": ("vanilla", "none"),
    "use_linear_attn": (False,),
    "use_video_arch": (False,),
    "give_pre_end": (False,),
    "downsample_time_stride4_levels": ([],),
}
"""Switches of the released code's autoencoders -> what the one here has of them."""


def _multipliers(d: dict[str, Any]) -> tuple[int, ...]:
    return tuple(d.get("ch_mult", (1, 2, 4, 8)))  # as its constructor has it


def _attention_levels(d: dict[str, Any]) -> tuple[int, ...]:
    """Return the levels whose maps have a side that `attn_resolutions` names.

    The released decoder counts sides from the smallest map upwards, its encoder from the largest
    downwards, and an odd one loses its half.

    Raises:
        ConfigError: levels of the decoder that are not the encoder's.
    """
    sides, side = d.get("attn_resolutions") or (), d["resolution"]
    last = len(_multipliers(d)) - 1
    encoder = tuple(level for level in range(last + 1) if side >> level in sides)
    decoder = tuple(level for level in range(last + 1) if side >> last << last - level in sides)
    if encoder != decoder:
        raise ConfigError(
            f"ddconfig.attn_resolutions = {list(sides)} with resolution = {side} makes encoder and "
            f"decoder attend on different levels, {list(encoder)} and {list(decoder)}; here they "
            f"are the same: a resolution that {1 << last} divides makes them so"
        )
    return encoder


def _closed(about: dict[str, Any], decoded: Tensor) -> Tensor:
    """Return what a decoder has made, as `tanh_out` says."""
    return decoded.tanh() if about["config"]["ddconfig"].get("tanh_out") else decoded


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
        made["out_dec"] = _closed(golden.about, _of_clips(codec.decode_raw, golden["z"]))
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

COLUMNS_PER_SECOND = 102.4
"""What the released code multiplies a sound's `time` by, whatever its front end is."""
HOP = 160
"""How many samples it cuts a sound to, for each of those columns."""


def released_vocoder(about: dict[str, Any], weights: Iterable[str] = ()) -> VocoderConfig:
    """Return our configuration of HiFi-GAN by its own names.

    The released generator has pairs of convolutions in three steps, whatever `resblock` is told to
    be and however many dilations there are; only names of weights speak for the other kind.
    """
    return VocoderConfig(
        bins=about["num_mels"],
        channels=about["upsample_initial_channel"],
        upsample=tuple(about["upsample_rates"]),
        upsample_kernels=tuple(about["upsample_kernel_sizes"]),
        kernels=tuple(about["resblock_kernel_sizes"]),
        dilations=tuple(tuple(each)[:3] for each in about["resblock_dilation_sizes"]),
        paired=not any(".convs." in name for name in weights),
        overhang=True,
    )


FRONT_END = {
    "filter_length": 1024,
    "win_length": 1024,
    "hop_length": HOP,
    "n_mel_channels": 64,
    "sampling_rate": 16_000,
    "mel_fmin": 0,
    "mel_fmax": 8000,
}
"""Arguments of the released code's front end, with its defaults."""
_OF_VOCODER = {
    "n_fft": "filter_length",
    "win_size": "win_length",
    "hop_size": "hop_length",
    "num_mels": "n_mel_channels",
    "sampling_rate": "sampling_rate",
    "fmin": "mel_fmin",
    "fmax": "mel_fmax",
}
"""HiFi-GAN's names of the same."""


def released_front_ends(about: dict[str, Any], columns: int) -> list[MelConfig]:
    """Return the front ends that a golden's spectrograms of so many columns may be of.

    The released code builds it with its defaults and never asks the vocoder. So the first is of the
    defaults and of what the golden states by their names, itself or in a table of its own; where it
    states none, the second is of the vocoder's numbers, should they have been given to it.

    Raises:
        ConfigError: none that there can be here.
    """
    tables = [about, *(value for value in about.values() if isinstance(value, dict))]
    stated = {
        key: table[key]
        for table in tables
        if table is not about.get("hifigan")
        for key in FRONT_END
        if key in table
    }
    generator = about.get("hifigan", {})
    of_vocoder = {_OF_VOCODER[k]: v for k, v in generator.items() if k in _OF_VOCODER}
    first = FRONT_END | stated
    wrong = _why_not(first, columns)
    if wrong:
        raise ConfigError(wrong)
    others = [FRONT_END | of_vocoder] if not stated else []
    possible = [first, *(other for other in others if not _why_not(other, columns))]
    return list(dict.fromkeys(_front_end(told, columns) for told in possible))


def _why_not(told: dict[str, Any], columns: int) -> str:
    """Return why there is no such front end here, nothing where there is."""
    hop, samples = told["hop_length"], columns * HOP
    if told["filter_length"] != told["win_length"]:
        return (
            f"filter_length = {told['filter_length']} beside win_length = {told['win_length']}; "
            "the front end here has one for both"
        )
    if hop > HOP or samples % hop:
        return f"hop_length = {hop}; the front end here has one that divides {samples} samples"
    return ""


def _front_end(told: dict[str, Any], columns: int) -> MelConfig:
    return MelConfig(
        sample_rate_hz=told["sampling_rate"],
        window=told["win_length"],
        hop=told["hop_length"],
        bins=told["n_mel_channels"],
        low_hz=float(told["mel_fmin"]),
        high_hz=float(told["mel_fmax"]),
        centred_on="start",
        levelled=True,
        columns=columns * HOP // told["hop_length"],
    )


@torch.no_grad()
def run_audio(golden: Golden) -> dict[str, Made]:
    """Hear the golden's sounds, encode them, decode its latents, and make sound of that.

    A golden may be of some of this: of the front end alone, or of the vocoder, which is then given
    a spectrogram, `mel`, or the `out_mel` that no weights are there to make.
    """
    about = golden.about
    autoencoder = released_autoencoder(about) if _is_autoencoder(about) else None
    weights = golden.weights() if autoencoder or "hifigan" in about else {}
    encodes = golden.has("wav") and (golden.has("out_mean") or _has(weights, "encoder."))
    decodes = golden.has("z") and (not golden.has("out_mel") or _has(weights, "decoder."))
    codec = None
    if autoencoder is not None and (encodes or decodes):
        idle = [] if encodes else ["encoder", "quant"]
        idle += [] if decodes else ["decoder", "post_quant"]
        others = {k: w for k, w in weights.items() if not k.startswith((_VOCODER, _CONSTANTS))}
        codec = golden.filled(autoencoder.build(), autoencoder_kl(autoencoder), others, idle)
    columns = _columns(golden, 1 if autoencoder is None else autoencoder.factor)
    ears = released_front_ends(about, columns or 1)
    heard = [_heard(golden, codec if encodes else None, ear, columns) for ear in ears]
    nearest = min(heard, key=lambda found: _distance(golden, found))
    made: dict[str, Made] = dict(nearest)
    given = next((name for name in ("mel", "out_mel") if golden.has(name)), "")
    mel = golden[given] if given else None
    if codec is not None and decodes:
        made["out_mel"] = mel = _closed(about, _of_clips(codec.decode_raw, golden["z"]))
    elif given == "out_mel":
        made[given] = Words(unchecked="the vocoder is given it: no weights make it of `z`")
    if mel is not None and golden.has("out_wave"):
        made["out_wave"] = _vocoder(golden, weights)(_as_picture(mel))[:, None]
    return made


_VOCODER, _CONSTANTS = "vocoder.", "fn_STFT."
"""How the names begin of the vocoder's weights, and of what the front end computes anew."""


def _has(weights: Mapping[str, Tensor], start: str) -> bool:
    return any(name.startswith(start) for name in weights)


def _vocoder(golden: Golden, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the vocoder with its weights, which need no prefix where there are no others."""
    together = _has(weights, _VOCODER) or _is_autoencoder(golden.about)
    own = {
        name.removeprefix(_VOCODER): weight
        for name, weight in weights.items()
        if name.startswith(_VOCODER if together else "")
    }
    config = released_vocoder(golden.about["hifigan"], own)
    return golden.filled(config.build(), vocoder(config), own)


def _as_picture(mel: Tensor) -> Tensor:
    """Return a spectrogram (B, 1, T, M), which HiFi-GAN's own code has as (B, M, T)."""
    return mel if mel.ndim == 4 else mel.transpose(1, 2)[:, None]


def _columns(golden: Golden, factor: int) -> int | None:
    """Return how many columns a golden's spectrograms are cut to, None where nothing says it."""
    if golden.has("out_fbank"):
        return golden.expected("out_fbank").shape[2]
    if "time" in golden.about:
        return int(golden.about["time"] * COLUMNS_PER_SECOND)
    return golden.expected("out_mean").shape[2] * factor if golden.has("out_mean") else None


def _heard(
    golden: Golden, autoencoder: AutoencoderKL | None, ear: MelConfig, columns: int | None
) -> dict[str, Tensor]:
    """Return what a front end, and an autoencoder after it, make of the golden's sounds."""
    made = {"mel_basis": mel_filters(ear)}
    if golden.has("wav") and columns is not None:
        spectrogram = log_mel(golden["wav"], ear)[:, :, :columns]
        made["out_fbank"] = spectrogram
        if autoencoder is not None:
            mean, log_variance = _of_clips(autoencoder.posterior, spectrogram)
            made |= {"out_mean": mean, "out_logvar": log_variance}
    return made


def _distance(golden: Golden, made: Mapping[str, Tensor]) -> float:
    """Return the largest error of what was made, infinity for another shape."""
    errors = [0.0]
    for name, value in made.items():
        if golden.has(name):
            expected = golden.expected(name)
            alike = expected.shape == value.shape
            errors.append(float((value - expected).abs().max()) if alike else math.inf)
    return max(errors)


# --- OPTIMUS ---


_GELU_OF_GPT2 = ("gelu_new", "gelu_pytorch_tanh")
"""Names of the one activation that GPT-2 has here: the approximation by a hyperbolic tangent."""


def released_optimus(about: dict[str, Any]) -> OptimusConfig:
    """Return our configuration of OPTIMUS by the names of its two halves.

    Raises:
        ConfigError: an activation that the half does not have here.
    """
    encoder, decoder = about["encoder_config"], about["decoder_config"]
    activation = encoder.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ConfigError(f"encoder_config.hidden_act = {activation!r}; BERT here has {known}")
    written_by = decoder.get("activation_function", _GELU_OF_GPT2[0])
    if written_by not in _GELU_OF_GPT2:
        raise ConfigError(
            f"decoder_config.activation_function = {written_by!r}; GPT-2 here has "
            f"{' or '.join(_GELU_OF_GPT2)}"
        )
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
        scale_factor=about.get("text_scale_factor", OptimusConfig.scale_factor),
        encoder_activation=activation,
        encoder_segments=encoder.get("type_vocab_size", OptimusConfig.encoder_segments),
        encoder_eps=encoder.get("layer_norm_eps", OptimusConfig.encoder_eps),
        decoder_eps=decoder.get("layer_norm_epsilon", OptimusConfig.decoder_eps),
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
        weights |= drawn_again(golden, "decoder.", lacking)
    idle = _idle(golden, ids=("encoder", "to_moments"))
    idle += () if decodes else ("decoder", "latent_offset", "latent_memory")
    codec = golden.filled(config.build(), optimus(config), weights, idle)
    outputs: dict[str, Tensor] = {}
    if golden.has("ids"):
        ids = golden["ids"]
        sequence, pooled = codec.encoder(ids, ids > 0)
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
        ids = rows[i, : scored[i].shape[1]] if expected is None else expected.long()
        outputs[f"out_greedy_{i}"] = rows[i, : len(ids)]
        outputs[f"out_logits_{i}"] = codec.logits(latents[i : i + 1], ids[None])
    return outputs


def drawn_again(
    golden: Golden, prefix: str, lacking: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return weights that a golden lacks, by drawing all of its weights below `prefix` again.

    The golden of OPTIMUS lost `attn.c_attn.bias` together with the causal masks, `attn.bias`. Its
    weights are random numbers, drawn in the order of their names from a seed that it says. Those it
    has prove it: drawn again, they have to be the same.

    Raises:
        ConfigError: they are not, so that what is lacking cannot be known.
    """
    known = {name: w for name, w in golden.weights().items() if name.startswith(prefix)}
    tied = f"{prefix}lm_head.weight"
    shapes = {name: tuple(w.shape) for name, w in known.items() if name != tied}
    shapes.update(lacking)
    about = golden.about
    seeds = [*reversed(about.get("seeds", ())), *(about[k] for k in ("seed",) if k in about)]
    for seed in seeds:
        drawn = _drawn(shapes, seed)
        if all(
            torch.allclose(weight, known[name], atol=1e-4, rtol=1e-3)
            for name, weight in drawn.items()
            if name not in lacking
        ):
            return {name: drawn[name] for name in lacking}
    raise ConfigError(
        f"{golden.path}: lacks the weight {min(lacking)!r}, and no seed that it says draws the "
        f"others ({', '.join(map(str, seeds)) or 'it says none'}); add the weight"
    )


def _drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Return the random weights that goldens are made with, in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name in sorted(shapes):
        normal = torch.randn(shapes[name], generator=generator)
        if normal.ndim > 1:
            weight = normal / normal[0].numel() ** 0.5
        else:
            weight = 0.1 * normal + (0.0 if name.endswith("bias") else 1.0)
        drawn[name] = weight.half().float()
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

    Cases of tokens need vocabularies: folders `bert-base-cased` and `gpt2` beside the golden, or in
    the folder that it was told. Without them these cases are not checked.
    """
    compared = {}
    for key, cases in _CASES.items():
        if key not in golden.about:
            continue
        place = (golden.tokenizers or golden.path.parent) / cases.folder
        if not place.is_dir():
            reason = f"needs {cases.files} in {place}, or in another folder by --tokenizers"
            compared[key] = Words(unchecked=reason)
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


def _is_audio(about: dict[str, Any]) -> bool:
    """Say whether a golden is of a vocoder, or of sounds and their spectrograms."""
    names = set(about.get("tensors", ()))
    return "hifigan" in about or ("wav" in names and bool(names & {"mel_basis", "out_fbank"}))


CHECKS: tuple[Check, ...] = (
    Check(lambda about: _is_autoencoder(about) and not _is_audio(about), run_autoencoder),
    Check(_is_audio, run_audio),
    Check(lambda about: {"encoder_config", "decoder_config"} <= about.keys(), run_optimus),
    Check(lambda about: any(isinstance(about.get(key), list) for key in _CASES), run_tokenizers),
)
"""Every form of golden of a codec."""
