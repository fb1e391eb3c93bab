"""The tests' model: every kind of part at a few thousand parameters, untrained."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from codi import media
from codi.build import Model, ModelConfig, load_config
from codi.folders import PRESETS
from codi.types import Latents

PRESET = Path(__file__).with_name("small.toml")
NAMES = ("text", "image", "video", "audio")
SENTENCE = "a large red ball made of wood bounces"

SHIPPED = sorted(p.stem for p in PRESETS.glob("*.toml") if not p.stem.startswith("recipe-"))
"""The presets of models."""

EXTERNAL = {"clip_text", "clip_vision", "clap_audio"}
"""Kinds of parts that need an extra."""

RELEASED = (
    'wiring = "own"',
    *(
        f'environments.{name} = {{ kind = "pooled_environment", environment_width = 16,'
        f" multipliers = [1], channels = 16, latent_channels = {channels}{more} }}"
        for name, channels, more in (
            ("text", 16, ", positions = 2"),
            ("vision", 4, ""),
            ("audio", 4, ""),
        )
    ),
)
"""What gives the model the wiring and the environment encoders of the released CoDi."""

Module = TypeVar("Module", bound=nn.Module)


def marks(preset: str) -> Any:
    """Return what to mark a test of a preset with: slow where it needs an extra."""
    encoders = load_config(preset).encoders.values()
    return pytest.mark.slow if EXTERNAL & {table.get("kind") for table in encoders} else ()


def small_config(*assignments: str) -> ModelConfig:
    """Return the configuration, with "a.b=c" changes."""
    return load_config(PRESET, assignments)


def small_model(*assignments: str, parts: Collection[str] | None = None, seed: int = 0) -> Model:
    """Return the model with fresh weights, the layers that start at zero included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(small_config(*assignments), parts).eval()


def awake(module: Module, seed: int = 0) -> Module:
    """Give every parameter that starts at zero a random value, so that no branch is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


def speaking(model: Model) -> Model:
    """Give fresh diffusers an output: theirs is zero, and with it every law about them is true."""
    for name, parameter in model.role("diffusers").named_parameters():
        if name.endswith(("conv_out.weight", "to_vector.weight")):
            nn.init.normal_(parameter, std=0.05)
    return model


def awake_model(*assignments: str, parts: Collection[str] | None = None) -> Model:
    """Return a model in which everything acts on everything, as in a trained one."""
    return awake(small_model(*assignments, parts=parts))


def latents(config: ModelConfig, names: Collection[str] = NAMES, size: int = 2) -> Latents:
    """Return random latents (B, ...) of some modalities."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(size, *config.modality(name).latent, generator=generator)
        for name in names
    }


def context(size: int = 2, width: int = 32) -> Tensor:
    """Return a random prompt (B, 1, D)."""
    return torch.randn(size, 1, width, generator=torch.Generator().manual_seed(2))


def objects() -> dict[str, Any]:
    """Return what a user holds of every modality: exactly of the model's sizes and rates."""
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    samples = (0.3 * np.sin(np.arange(32_000) * 0.2)).astype(np.float32)
    return {
        "text": SENTENCE,
        "image": Image.fromarray(frames[0]),
        "video": media.Video(frames, 8.0),
        "audio": media.Audio(samples, 16_000),
    }
