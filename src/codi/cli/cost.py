"""What a model costs to run: floating-point operations, and the speed of the machine.

Operations are counted on shapes alone, without weights or memory, so that any size can be counted
anywhere. A multiplication and an addition are two operations.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from codi.build import Model, ModelConfig
from codi.modalities import modality
from codi.training.task import Task

_TRAINED_PASSES = 3  # forward, gradient of activations, gradient of weights
_FROZEN_PASSES = {"codecs": 1, "encoders": 1, "environments": 2, "diffusers": 2}
_TOKENS = 16
"""How long a sentence is taken to be."""


def model_of_shapes(config: ModelConfig, parts: Iterable[str] | None = None) -> Model:
    """Return a model whose parts (all of them by default) have shapes but no memory."""
    with torch.device("meta"):
        return Model(config, None if parts is None else list(parts))


def evaluation_flops(model: Model, streams: Sequence[str]) -> int:
    """Count one evaluation of `streams` together, for one sample and without guidance."""
    z_t = {name: _latent(model.config, name) for name in streams}
    t = {name: _step() for name in streams}
    return _count(lambda: model.codi(streams)(z_t, t, _context(model.config)))


def evaluation_s(
    config: ModelConfig, streams: Sequence[str], device: str = "cpu", repeat: int = 3
) -> float:
    """Measure one evaluation of `streams` together with weights that were never trained, in s."""
    roles = ("diffusers", "environments") if len(streams) > 1 else ("diffusers",)
    model = Model(config, config.parts(roles, streams)).eval().to(device)
    z_t = {name: torch.zeros_like(_latent(config, name), device=device) for name in streams}
    t = {name: torch.ones_like(_step(), device=device) for name in streams}
    context = torch.zeros_like(_context(config), device=device)
    codi = model.codi(streams)
    times = []
    with torch.no_grad():
        for _ in range(repeat + 1):
            began_s = time.perf_counter()
            made = codi(z_t, t, context)
            float(sum(x.sum() for x in made.values()))  # waits for a GPU
            times.append(time.perf_counter() - began_s)
    return min(times[1:])


def matrix_peak(device: str = "cpu", size: int = 1024, duration_s: float = 0.5) -> float:
    """Measure the operations per second of matrix multiplication in float32, at its best."""
    a = torch.randn(size, size, device=device)
    float((a @ a)[0, 0])
    best_s, began_s = math.inf, time.perf_counter()
    while time.perf_counter() - began_s < duration_s:
        one_s = time.perf_counter()
        product = a @ a
        float(product[0, 0])  # waits for a GPU
        best_s = min(best_s, time.perf_counter() - one_s)
    return 2 * size**3 / best_s


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
    return _count(lambda: part(_latent(config, name), _step(), _context(config), None))


def _environment_pass(part: Any, model: Model, name: str) -> int:
    return _count(lambda: part(_latent(model.config, name), _step()))


def _codec_pass(part: Any, model: Model, name: str) -> int:
    return _count(lambda: part.encode(part.decode(_latent(model.config, name))))


def _encoder_pass(part: Any, model: Model, name: str) -> int:
    with torch.no_grad():
        medium = model.codec(name).decode(_latent(model.config, name))
    return _count(lambda: part(medium))


_OF_MEDIA = ("codecs", "encoders")
_PASSES: dict[str, Callable[[Any, Model, str], int]] = {
    "codecs": _codec_pass,
    "encoders": _encoder_pass,
    "environments": _environment_pass,
    "diffusers": _diffuser_pass,
}


def _count(work: Callable[[], object]) -> int:
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _latent(config: ModelConfig, name: str) -> Tensor:
    return torch.zeros(1, *config.modality(name).latent, device="meta")


def _step() -> Tensor:
    return torch.ones(1, dtype=torch.long, device="meta")


def _context(config: ModelConfig) -> Tensor:
    """Return an empty prompt (B, L, D)."""
    encoders = [m.encoder for m in config.modalities.values() if m.encoder]
    encoder = config.part("encoders", encoders[0])
    tokens = getattr(encoder, "context_tokens", 1)
    return torch.zeros(1, tokens, encoder.context_width, device="meta")
