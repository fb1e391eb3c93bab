"""One evaluation of a model's streams, alone and together: operations, weights read, seconds.

Weights are random, so any preset can be measured, at any size that fits into memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from codi.benchmarks import networks
from codi.benchmarks.counting import counted
from codi.benchmarks.machine import Work, in_turns, matrix_peak, ratio, reading_speed
from codi.benchmarks.peer import diffusers_twin
from codi.build import Model, ModelConfig
from codi.config import ConfigError
from codi.nn.readiness import Readiness
from codi.unets.prepared import Context

PEER = "diffusers"
MACHINE = "machine"
"""What the turns call the measuring of the machine itself."""

SPEED_S = 0.2
"""Seconds in each turn for each speed of the machine."""


@dataclass(frozen=True)
class Setting:
    """What is measured, and how.

    Attributes:
        streams: names of modalities; each is measured alone, several together as well.
        batch: samples at once; guidance makes two of one.
        tokens: L of the prompt; the model's own when None.
        packed: whether networks are made ready as those of a pipeline are (`codi.nn.readiness`).
        compiled: whether the diffusers are translated instead (`torch.compile`).
        prepared: whether what depends on the prompt or on the step alone is computed before, as in
            a request after its first step; not for networks that a request does not prepare it for.
        against_peer: whether to time `diffusers` on the same input, for the first stream.
        repeat: counted turns.
    """

    streams: tuple[str, ...]
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    batch: int = 1
    tokens: int | None = None
    packed: bool = True
    compiled: bool = False
    prepared: bool = False
    against_peer: bool = False
    repeat: int = 5

    def __post_init__(self) -> None:
        """Refuse what no request does.

        Raises:
            ConfigError: prepared prompts for networks that take none, or against one such.
        """
        if self.prepared and not self.readiness.takes_prepared:
            raise ConfigError(
                "networks that are recorded on a GPU, or compiled there, take no prepared prompts; "
                "leave --prepared out, or add --plain and leave --compile out"
            )
        if self.prepared and self.against_peer:
            raise ConfigError("the peer reads its prompt in every evaluation; leave --prepared out")

    @property
    def readiness(self) -> Readiness:
        """Return how networks are made ready."""
        return Readiness(torch.device(self.device), self.compiled, lasting=self.packed)


@dataclass(frozen=True)
class Measured:
    """One evaluation.

    Attributes:
        name: the streams, or the peer.
        seconds: the median of the turns.
        flops, bytes_read: operations, and bytes of the weights that it reads.
        of_peak, of_reading: shares of the speeds that the machine had in the same turn, the median.
    """

    name: str
    seconds: float
    flops: int
    bytes_read: int
    of_peak: float
    of_reading: float


@dataclass(frozen=True)
class Report:
    """What was measured in one run.

    Attributes:
        evaluations: of each stream alone, then of all together, then of the peer.
        peak: operations per second of matrix products; reading: bytes per second from memory: the
            medians of the turns.
        of_parts: time of all together over what its parts alone and the counted operations of the
            environment would take; None for one stream.
        of_peer: time of the peer over ours; None without one.
        difference: largest difference of the peer's numbers from ours, over their deviation.
        environment: share of the environment in the operations of all together.
    """

    evaluations: tuple[Measured, ...]
    peak: float
    reading: float
    of_parts: float | None = None
    of_peer: float | None = None
    difference: float | None = None
    environment: float | None = None


def resized(config: ModelConfig, frames: int | None, size: int | None) -> ModelConfig:
    """Return a model with clips of `frames` frames, and square latents of `size` by `size`."""

    def shape(latent: tuple[int, ...]) -> tuple[int, ...]:
        if len(latent) != 4:
            return latent
        channels, count, height, width = latent
        count = frames if frames and count > 1 else count
        square = (size, size) if size and height == width else (height, width)
        return (channels, count, *square)

    changed = {
        name: replace(settings, latent=shape(settings.latent))
        for name, settings in config.modalities.items()
    }
    return replace(config, modalities=changed)


@torch.no_grad()
def measure(config: ModelConfig, setting: Setting) -> Report:
    """Measure the evaluations of a setting, in turns, each of which begins with the machine.

    Raises:
        ConfigError: no such stream, or no peer for it.
    """
    s = setting
    together = len(s.streams) > 1
    parts = config.parts(("diffusers", "environments") if together else ("diffusers",), s.streams)
    clips = any(len(shape) == 4 and shape[1] > 1 for shape in _shapes(config, s.streams))
    skip = (*(() if together else ("environment",)), *(() if clips else ("temporal",)))
    model = networks.random_model(config, parts, s.device, s.dtype, skip)
    z_t = networks.latents(config, s.streams, s.batch, s.device, s.dtype)
    steps = dict.fromkeys(s.streams, networks.step(s.batch, s.device))
    prompt = networks.context(config, s.batch, s.tokens, s.device, s.dtype)
    prompts: dict[str, Context] = dict.fromkeys(s.streams, prompt)
    speeds: list[dict[str, float]] = []  # of each turn
    works: dict[str, Work] = {MACHINE: lambda: speeds.append(_speeds(s))}
    groups = [(name,) for name in s.streams] + ([s.streams] if together else [])
    for group in groups:
        works[" + ".join(group)] = _work(model, group, z_t, steps, prompts)
    first = s.streams[0]
    if s.against_peer:
        part = model.part("diffusers", first)
        twin = diffusers_twin(part, z_t[first])
        works[PEER] = lambda: twin(z_t[first][:, :, 0], steps[first] - 1, prompt).sample
    shapes = networks.model_of_shapes(config, parts)
    costs = {" + ".join(group): _cost(shapes, group, s) for group in groups}
    difference = _difference(works, first) if s.against_peer else None
    for role in ("diffusers", "environments"):
        for network in model.role(role).values():
            s.readiness.make_ready(network, large=role == "diffusers")
    if s.prepared:
        prompts |= _prepared(model, s.streams, prompt)
    # The second evaluation is recorded on a GPU, and what is compiled there may take two as well.
    times = in_turns(works, s.repeat, s.device, warm_up=1 if s.device == "cpu" else 3)
    costs |= {PEER: costs[first]} if s.against_peer else {}
    speeds = speeds[-s.repeat :]
    return Report(
        tuple(_measured(name, times[name], *cost, speeds) for name, cost in costs.items()),
        peak=statistics.median(turn["peak"] for turn in speeds),
        reading=statistics.median(turn["reading"] for turn in speeds),
        of_parts=_of_parts(times, costs, s.streams) if together else None,
        of_peer=ratio(times, PEER, first) if s.against_peer else None,
        difference=difference,
        environment=_environment(costs, s.streams) if together else None,
    )


def _speeds(setting: Setting) -> dict[str, float]:
    """Measure the machine: operations and bytes per second."""
    s = setting
    return {
        "peak": matrix_peak(s.device, duration_s=SPEED_S, dtype=s.dtype),
        "reading": reading_speed(s.device, duration_s=SPEED_S, dtype=s.dtype),
    }


def _measured(
    name: str, times_s: Sequence[float], flops: int, read: int, speeds: Sequence[dict[str, float]]
) -> Measured:
    turns = list(zip(times_s, speeds, strict=True))
    return Measured(
        name,
        statistics.median(times_s),
        flops,
        read,
        of_peak=statistics.median(flops / taken_s / turn["peak"] for taken_s, turn in turns),
        of_reading=statistics.median(read / taken_s / turn["reading"] for taken_s, turn in turns),
    )


def evaluation_flops(
    model: Model, streams: Sequence[str], batch: int = 1, tokens: int | None = None
) -> int:
    """Count one evaluation of `streams` together, of a model of shapes and without guidance."""
    inputs = _meta_inputs(model, streams, batch, tokens)
    return counted(lambda: model.codi(streams)(*inputs))


def weights_read(model: nn.Module, work: Work) -> list[nn.Parameter]:
    """Return the parameters of the layers inside `model` that a work calls, each once."""
    read: dict[int, nn.Parameter] = {}

    def note(module: nn.Module, _inputs: Any) -> None:
        read.update((id(p), p) for p in module.parameters(recurse=False))

    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_pre_hook(note).remove)
        work()
    return list(read.values())


def _work(
    model: Model,
    streams: Sequence[str],
    z_t: dict[str, Tensor],
    steps: dict[str, Tensor],
    prompts: Mapping[str, Context],
) -> Callable[[], dict[str, Tensor]]:
    codi = model.codi(streams)
    chosen = {name: z_t[name] for name in streams}, {name: steps[name] for name in streams}
    return lambda: codi(*chosen, prompts)


def _prepared(model: Model, streams: Sequence[str], prompt: Tensor) -> dict[str, Context]:
    """Return what each stream's diffuser computes of a prompt and of the step alone."""
    diffusers: Any = model.codi(streams).diffusers
    return {
        name: diffusers[name].prepare(prompt, [networks.STEP]).at(networks.STEP) for name in streams
    }


def _shapes(config: ModelConfig, streams: Sequence[str]) -> list[tuple[int, ...]]:
    return [tuple(config.modality(name).latent) for name in streams]


def _meta_inputs(
    model: Model,
    streams: Sequence[str],
    batch: int,
    tokens: int | None,
    prepared: bool = False,
) -> Any:
    z_t = {
        name: torch.zeros(batch, *shape, device="meta")
        for name, shape in zip(streams, _shapes(model.config, streams), strict=True)
    }
    steps = dict.fromkeys(streams, networks.step(batch, "meta"))
    prompt = networks.context(model.config, batch, tokens, "meta")
    return z_t, steps, _prepared(model, streams, prompt) if prepared else prompt


def _cost(model: Model, streams: Sequence[str], setting: Setting) -> tuple[int, int]:
    """Return the operations of an evaluation, and the bytes of the weights it reads."""
    s = setting
    given = _meta_inputs(model, streams, s.batch, s.tokens, s.prepared)
    codi = model.codi(streams)
    read = weights_read(codi, lambda: codi(*given))
    flops = counted(lambda: codi(*given))
    return flops, sum(p.numel() for p in read) * s.dtype.itemsize


def _of_parts(
    times: dict[str, list[float]], costs: dict[str, tuple[int, int]], streams: Sequence[str]
) -> float:
    """Return the median over the turns of the joint time over what its parts promise."""
    joint = " + ".join(streams)
    more = 1 / (1 - _environment(costs, streams))  # environments, as efficient as the rest
    turns = zip(times[joint], *(times[name] for name in streams), strict=True)
    return statistics.median(together / (more * sum(parts)) for together, *parts in turns)


def _environment(costs: dict[str, tuple[int, int]], streams: Sequence[str]) -> float:
    """Return the share of the environment in the operations of all streams together."""
    return 1 - sum(costs[name][0] for name in streams) / costs[" + ".join(streams)][0]


def _difference(works: dict[str, Any], stream: str) -> float:
    """Return how far the peer's numbers are from ours."""
    ours, theirs = works[stream]()[stream][:, :, 0].float(), works[PEER]().float()
    return float((ours - theirs).abs().max() / ours.std())
