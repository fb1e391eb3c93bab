"""Golden checks of the prompt encoders: CLIP's three ways in, and CLAP with its front end."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from codi.audio import mel_filters
from codi.convert.encoders import clap_audio, clip_text, clip_vision
from codi.convert.golden import Check, Golden
from codi.encoders.clap import RESAMPLERS, ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig


def clip_text_config(about: dict[str, Any]) -> ClipTextConfig:
    """Return our configuration of a golden's text tower, by the names of `transformers`."""
    c = about["text_config"]
    return ClipTextConfig(
        context_width=about["projection_dim"],
        vocabulary=c["vocab_size"],
        length=c["max_position_embeddings"],
        width=c["hidden_size"],
        heads=c["num_attention_heads"],
        layers=c["num_hidden_layers"],
        hidden_width=c["intermediate_size"],
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
        unit_context=True,
    )


def clap_config(about: dict[str, Any], weights: dict[str, Tensor]) -> ClapAudioConfig:
    """Return our configuration of a golden's CLAP, by the names of its authors' code."""
    audio, tower = about["audio_cfg"], about["htsat"]
    mel = {"sample_rate_hz": audio["sample_rate"], "window": audio["window_size"]}
    mel |= {"hop": audio["hop_size"], "bins": audio["mel_bins"]}
    return ClapAudioConfig(
        context_width=weights["audio_projection.2.weight"].shape[0],
        mel=dataclasses.replace(
            ClapAudioConfig().mel, **mel, low_hz=audio["fmin"], high_hz=audio["fmax"]
        ),
        duration_s=audio["clip_samples"] / audio["sample_rate"],
        resampling="windowed_sinc",
        channels=tower["embed_dim"],
        depths=tuple(tower["depths"]),
        heads=tuple(tower["num_heads"]),
        window=tower["window_size"],
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
            frames = pixels.shape[1] if name == "video" else 1
            pictures = pixels.flatten(0, 1) if name == "video" else pixels
            seen = viewer.look(pictures, frames)
            made[f"out_{name}"] = viewer.context(viewer.project(seen))
            made[f"out_{name}_pooled"] = seen
    return made


@torch.no_grad()
def run_clap(golden: Golden) -> dict[str, Tensor]:
    """Return the context of sounds, and the stations on the way to it."""
    weights = golden.weights("model.")
    config = clap_config(golden.about, weights)
    encoder = config.build().eval()
    golden.filled(encoder, clap_audio(config), weights)
    sounds = golden["wav16k"]
    rates = (config.sample_rate_hz, config.mel.sample_rate_hz)
    return {
        "resampled48k_first4000": RESAMPLERS[config.resampling](sounds, *rates)[:, :4000],
        "melW": mel_filters(config.mel).T,
        "logmel_first64frames": encoder.spectrogram(sounds)[:, :, :64],
        "out_embed": encoder(sounds),
    }


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
