"""Golden checks of the prompt encoders: CLIP's three ways in, and CLAP with its front end."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal

import torch
from torch import Tensor

from codi.audio import mel_filters
from codi.config import ConfigError
from codi.convert.encoders import clap_audio, clip_text, clip_vision
from codi.convert.golden import Check, Golden
from codi.encoders.clap import RESAMPLERS, ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig


def clip_text_config(about: dict[str, Any]) -> ClipTextConfig:
    """Return our configuration of a golden's text tower, by the names of `transformers`.

    Of those, `layer_norm_eps` is not read: the released code's norms have 1e-5 whatever it says.
    """
    c = about["text_config"]
    return ClipTextConfig(
        context_width=about["projection_dim"],
        vocabulary=c["vocab_size"],
        length=c["max_position_embeddings"],
        width=c["hidden_size"],
        heads=c["num_attention_heads"],
        layers=c["num_hidden_layers"],
        hidden_width=c["intermediate_size"],
        activation=_activation(about, c),
        unit_context=True,
    )


def clip_vision_config(about: dict[str, Any]) -> ClipVisionConfig:
    """Return our configuration of a golden's vision tower, by the names of `transformers`."""
    c = about["vision_config"]
    return ClipVisionConfig(
        context_width=about["projection_dim"],
        size_px=c["image_size"],
        patch=c["patch_size"],
        width=c["hidden_size"],
        heads=c["num_attention_heads"],
        layers=c["num_hidden_layers"],
        hidden_width=c["intermediate_size"],
        temporal_blocks=True,
        activation=_activation(about, c),
        unit_context=True,
    )


_ACTIVATIONS: dict[str, Literal["quick_gelu", "gelu"]] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
}


def _activation(about: dict[str, Any], tower: dict[str, Any]) -> Literal["quick_gelu", "gelu"]:
    """Return the activation of a tower, which is told for both or for each.

    Raises:
        ConfigError: one that no tower here has.
    """
    told = tower.get("hidden_act", about.get("hidden_act", "quick_gelu"))
    if told not in _ACTIVATIONS:
        raise ConfigError(f"hidden_act = {told!r}; CLIP here has {' or '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[told]


def clap_config(
    about: dict[str, Any], weights: dict[str, Tensor], sample_rate_hz: int = 16_000
) -> ClapAudioConfig:
    """Return our configuration of a golden's CLAP, by the names of its authors' code.

    Args:
        about: the golden's JSON.
        weights: its weights, whose shapes say how wide the context is.
        sample_rate_hz: of the sounds that it is given.
    """
    audio, tower = about["audio_cfg"], about["htsat"]
    mel = {"sample_rate_hz": audio["sample_rate"], "window": audio["window_size"]}
    mel |= {"hop": audio["hop_size"], "bins": audio["mel_bins"]}
    return ClapAudioConfig(
        context_width=weights["audio_projection.2.weight"].shape[0],
        sample_rate_hz=sample_rate_hz,
        mel=dataclasses.replace(
            ClapAudioConfig().mel, **mel, low_hz=audio["fmin"], high_hz=audio["fmax"]
        ),
        duration_s=audio["clip_samples"] / audio["sample_rate"],
        resampling="windowed_sinc",
        channels=tower["embed_dim"],
        depths=tuple(tower["depths"]),
        heads=tuple(tower["num_heads"]),
        window=tower["window_size"],
        patch=tower.get("patch_size", 4),
        picture=tower.get("spec_size", 256),
        unit_context=True,
    )


@torch.no_grad()
def run_clip(golden: Golden) -> dict[str, Tensor]:
    """Return the contexts of tokens, pictures and clips (B, F, C, H, W), and what they are of.

    Of the three, those are made that the golden has inputs of.
    """
    weights = golden.weights("model.")
    made = {}
    if golden.has("tokens"):
        text = clip_text_config(golden.about)
        reader = text.build().eval()
        golden.filled(reader, clip_text(text), _below(weights, ("text_", "logit_scale")))
        read = reader.read(golden["tokens"])
        made["out_text"] = reader.context(reader.project(read))
    shown = [name for name in ("image", "video") if golden.has(f"pixels_{name}")]
    if shown:
        vision = clip_vision_config(golden.about)
        viewer = vision.build().eval()
        idle = () if "video" in shown else ("blocks",)
        below = _below(weights, ("vision_", "visual_"))
        golden.filled(viewer, clip_vision(vision), below, idle)
        for name in shown:
            pixels = golden[f"pixels_{name}"]
            clips = pixels.ndim == 5  # a clip of one frame is still a clip
            frames = pixels.shape[1] if clips else 1
            seen = viewer.look(pixels.flatten(0, 1) if clips else pixels, frames, clips)
            made[f"out_{name}"] = viewer.context(viewer.project(seen))
            made[f"out_{name}_pooled"] = seen
    return made


@torch.no_grad()
def run_clap(golden: Golden) -> dict[str, Tensor]:
    """Return the context of sounds, and the stations on the way to it.

    The names of a golden's stations say how much of them it keeps, "resampled48k_first4000".
    """
    weights = golden.weights("model.")
    name, rate_hz = _sounds(golden)
    config = clap_config(golden.about, weights, rate_hz)
    encoder = config.build().eval()
    golden.filled(encoder, clap_audio(config), weights)
    sounds = golden[name]
    rates = (config.sample_rate_hz, config.mel.sample_rate_hz)
    stations = {
        "resampled": (RESAMPLERS[config.resampling](sounds, *rates), 1),
        "logmel": (encoder.spectrogram(sounds), 2),
    }
    made = {"melW": mel_filters(config.mel).T, "out_embed": encoder(sounds)}
    for name in golden.tensors:
        found = _EXCERPT.fullmatch(name)
        if found is not None:
            station, along = stations[found["station"]]
            kept = int(found["kept"] or station.shape[along])
            made[name] = station.narrow(along, 0, min(kept, station.shape[along]))
    return made


_SOUNDS = re.compile(r"wav(?P<rate_khz>\d+)k")
_EXCERPT = re.compile(r"(?P<station>resampled|logmel)[^_]*(_first(?P<kept>\d+)(frames)?)?")


def _sounds(golden: Golden) -> tuple[str, int]:
    """Return the name of a golden's waveforms and their rate in Hz, which it says.

    Raises:
        ConfigError: it has none.
    """
    for name in golden.tensors:
        found = _SOUNDS.fullmatch(name)
        if found is not None:
            return name, 1000 * int(found["rate_khz"])
    raise ConfigError(f"{golden.path}: has no waveforms; name them by their rate, such as wav16k")


def _below(weights: dict[str, Tensor], starts: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith(starts)}


def _is_clip(about: dict[str, Any]) -> bool:
    towers = {"text_config", "vision_config"}
    return "projection_dim" in about and bool(towers & about.keys())


CHECKS: tuple[Check, ...] = (
    Check(_is_clip, run_clip),
    Check(lambda about: {"audio_cfg", "htsat"} <= about.keys(), run_clap),
)
"""How the goldens of CLIP and CLAP are recognised and run."""
