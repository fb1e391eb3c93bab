"""What training costs: floating-point operations, counted on shapes alone.

Neither weights nor memory are needed, so that any size can be counted anywhere.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from codi.benchmarks.counting import counted
from codi.benchmarks.networks import context, model_of_shapes, step
from codi.build import Model, ModelConfig
from codi.modalities import modality
from codi.training.task import Task

_TRAINED_PASSES = 3  # forward, gradient of activations, gradient of weights
_FROZEN_PASSES = {"codecs": 1, "encoders": 1, "environments": 2, "diffusers": 2}
_TOKENS = 16
"""How long a sentence is taken to be."""


class Costs:
    """Operations of training, with every part of a model counted once."""

    def __init__(self, config: ModelConfig) -> None:
        self.model = model_of_shapes(config)
        self._counted: dict[tuple[str, str], float] = {}

    def with_parts(self, parts: Iterable[str]) -> Model:
        """Return a model of shapes that has only `parts` ("role.name")."""
        few = Model(self.model.config, [])
        for part in parts:
            role, name = part.split(".", 1)
            few.role(role)[name] = self.model.role(role)[name]
        return few

    def training_flops(self, task: Task, trained: Collection[str]) -> float:
        """Estimate one training step on one sample.

        A part ("role.name") in `trained` costs three forward passes; a frozen diffuser or
        environment encoder costs two, since gradients pass through it, and other frozen parts one.
        A part that does not run on shapes is counted as two operations for each parameter and place
        of the latent: expect the order of magnitude.
        """
        config = self.model.config
        wanted = [*task.wanted.latents, *task.wanted.media, *config.modalities]
        total = 0.0
        for part in task.parts:
            role, name = part.split(".", 1)
            user = next(m for m in wanted if config.modality(m).part(role) == name)
            passes = _TRAINED_PASSES if part in trained else _FROZEN_PASSES[role]
            total += passes * self._part_flops(role, user)
        return total

    def _part_flops(self, role: str, name: str) -> float:
        """Count one forward pass of the part that a modality uses in a role, for one sample."""
        if (role, name) not in self._counted:
            self._counted[role, name] = self._count_part(role, name)
        return self._counted[role, name]

    def _count_part(self, role: str, name: str) -> float:
        part: Any = self.model.part(role, name)
        if not modality(name).is_caption or role not in _OF_MEDIA:
            with contextlib.suppress(RuntimeError):  # some operations refuse shapes alone
                return _PASSES[role](part, self.model, name)
        places = math.prod(self.model.config.modality(name).latent[1:])
        return 2.0 * max(places, _TOKENS) * sum(p.numel() for p in part.parameters())


def _diffuser_pass(part: Any, model: Model, name: str) -> int:
    config = model.config
    return counted(
        lambda: part(
            _latent(config, name), step(device="meta"), context(config, device="meta"), None
        )
    )


def _environment_pass(part: Any, model: Model, name: str) -> int:
    return counted(lambda: part(_latent(model.config, name), step(device="meta")))


def _codec_pass(part: Any, model: Model, name: str) -> int:
    return counted(lambda: part.encode(part.decode(_latent(model.config, name))))


def _encoder_pass(part: Any, model: Model, name: str) -> int:
    with torch.no_grad():
        medium = model.codec(name).decode(_latent(model.config, name))
    return counted(lambda: part(medium))


_OF_MEDIA = ("codecs", "encoders")
_PASSES: dict[str, Callable[[Any, Model, str], int]] = {
    "codecs": _codec_pass,
    "encoders": _encoder_pass,
    "environments": _environment_pass,
    "diffusers": _diffuser_pass,
}


def _latent(config: ModelConfig, name: str) -> Tensor:
    return torch.zeros(1, *config.modality(name).latent, device="meta")
