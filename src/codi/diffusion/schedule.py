"""Noise schedules: how much of the data and how much noise there is at step t.

The forward process is variance preserving, `z_t = alpha_t z_0 + sigma_t noise` with
`alpha_t = sqrt(alpha_bar_t)` and `sigma_t = sqrt(1 - alpha_bar_t)` (CoDi, section 3.1, with the
square roots that its text leaves out; Ho et al. 2020, Eq. 4). The integer step t runs from 0, clean
data, to T, the noisiest level. This module does not know what is diffused, by which network, or on
which device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

KARRAS_RHO: Final = 7.0


def _scaled_linear_betas(steps: int, beta_start: float, beta_end: float) -> Tensor:
    """Space sqrt(beta) evenly: the "linear" of CoDi, Table 12, as latent diffusion realises it."""
    root = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), steps, dtype=torch.float64)
    return root.square()


def _linear_betas(steps: int, beta_start: float, beta_end: float) -> Tensor:
    """Space beta evenly (Ho et al. 2020, section 4)."""
    return torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)


def _cosine_betas(steps: int, _beta_start: float, _beta_end: float) -> Tensor:
    """Make alpha_bar a squared cosine (Nichol & Dhariwal 2021, Eq. 17)."""
    offset = 0.008
    fraction = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = torch.cos((fraction + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - level[1:] / level[:-1]).clamp(max=0.999)


BETAS: Final = MappingProxyType(
    {"scaled_linear": _scaled_linear_betas, "linear": _linear_betas, "cosine": _cosine_betas}
)
"""Kind of schedule -> (steps, beta_start, beta_end) -> betas (T,) float64."""


def _without_terminal_signal(alphas: Tensor) -> Tensor:
    """Shift and scale alphas (T,) so that the last is 0 and the first stays.

    Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", Algorithm 1.
    """
    first, last = alphas[0], alphas[-1]
    return (alphas - last) * (first / (first - last))


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Hold alpha_t and sigma_t for t = 0..T; make one with `NoiseSchedule.build`.

    Attributes:
        kind: name of the schedule, a key of `BETAS`.
        T: number of noise levels.
        alpha_bar: (T+1,) float64 on the CPU, signal power; the exact values behind the rest.
        alphas: (T+1,) float32, sqrt(alpha_bar).
        sigmas: (T+1,) float32, sqrt(1 - alpha_bar).

    >>> schedule = NoiseSchedule.build("scaled_linear")
    >>> schedule.T, schedule.timesteps(4)
    (1000, [1000, 750, 500, 250, 0])
    >>> [round(value, 4) for value in schedule.level(1000)]
    [0.0683, 0.9977]
    """

    kind: str
    T: int
    alpha_bar: Tensor
    alphas: Tensor
    sigmas: Tensor

    @classmethod
    def build(
        cls,
        kind: str = "scaled_linear",
        steps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.0120,
        zero_terminal_snr: bool = False,
    ) -> NoiseSchedule:
        """Compute a schedule in float64 (defaults: CoDi, Table 12).

        Args:
            kind: a key of `BETAS`.
            steps: T, the number of noise levels.
            beta_start: variance added at t = 1 (unused by "cosine").
            beta_end: variance added at t = T (unused by "cosine").
            zero_terminal_snr: leave no signal at t = T (Lin et al. 2023, Algorithm 1).

        Raises:
            ValueError: for an unknown kind, no steps, or betas outside 0 < start <= end < 1.
        """
        if kind not in BETAS:
            raise ValueError(f"unknown noise schedule {kind!r}; use one of {', '.join(BETAS)}")
        least = 2 if zero_terminal_snr else 1
        if steps < least:
            raise ValueError(f"steps is {steps}; a noise schedule needs at least {least}")
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(
                f"beta_start {beta_start} and beta_end {beta_end} must satisfy "
                "0 < beta_start <= beta_end < 1"
            )
        alpha_bar = torch.cumprod(1 - BETAS[kind](steps, beta_start, beta_end), dim=0)
        if zero_terminal_snr:
            alpha_bar = _without_terminal_signal(alpha_bar.sqrt()).square()
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar])  # (T+1,)
        return cls(
            kind=kind,
            T=steps,
            alpha_bar=alpha_bar,
            alphas=alpha_bar.sqrt().float(),
            sigmas=(1 - alpha_bar).sqrt().float(),
        )

    def to(self, device: torch.device | str) -> NoiseSchedule:
        """Return the schedule with its float32 tables on `device`, to spare copies later."""
        return replace(self, alphas=self.alphas.to(device), sigmas=self.sigmas.to(device))

    def level(self, t: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) of one step as float64 numbers, for solver coefficients."""
        if not 0 <= t <= self.T:
            raise ValueError(f"step t = {t} is outside 0..{self.T} of the noise schedule")
        alpha_bar = float(self.alpha_bar[t])
        return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)

    def alpha(self, t: Tensor, ndim: int = 1) -> Tensor:
        """Look up alpha_t for steps t (B,): (B, 1, ..., 1) with `ndim` axes, on t's device."""
        return self._gather(self.alphas, t, ndim)

    def sigma(self, t: Tensor, ndim: int = 1) -> Tensor:
        """Look up sigma_t for steps t (B,): (B, 1, ..., 1) with `ndim` axes, on t's device."""
        return self._gather(self.sigmas, t, ndim)

    def add_noise(self, z0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Diffuse z0 (B, ...) to steps t (B,): alpha_t z_0 + sigma_t noise (Ho et al., Eq. 4)."""
        return self.alpha(t, z0.ndim) * z0 + self.sigma(t, z0.ndim) * noise

    def snr(self, t: Tensor) -> Tensor:
        """Return alpha_t^2 / sigma_t^2 (B,) for steps t (B,) (Kingma et al. 2021, Eq. 2)."""
        return self._gather((self.alpha_bar / (1 - self.alpha_bar)).float(), t, 1)

    def timesteps(self, count: int, spacing: str = "trailing") -> list[int]:
        """Choose `count` steps out of 1..T, decreasing, and append the last one, 0 mostly.

        The neighbours of the list are the moves of a sampler. Spacing "ldm" ends at t = 1: latent
        diffusion takes the latent of the lowest noise level for the clean one. It makes `count`
        moves as every spacing does, also where latent diffusion, asked for as many, makes more: see
        `_leading`.

        Args:
            count: number of moves, 1..T.
            spacing: a key of `SPACINGS`.

        Raises:
            ValueError: for a count outside 1..T or an unknown spacing.
        """
        if not 1 <= count <= self.T:
            raise ValueError(f"steps = {count}; choose 1..{self.T}, the levels of the schedule")
        if spacing not in SPACINGS:
            raise ValueError(f"unknown spacing {spacing!r}; use one of {', '.join(SPACINGS)}")
        steps = SPACINGS[spacing](self, count)
        return [*steps, min(_ENDS.get(spacing, 0), steps[-1] - 1)]

    def _gather(self, table: Tensor, t: Tensor, ndim: int) -> Tensor:
        """Index a table (T+1,) by t (B,) and add axes up to `ndim`."""
        if t.is_floating_point() or t.ndim != 1:
            raise ValueError(
                f"t has shape {tuple(t.shape)} and type {t.dtype}; give integer steps of shape (B,)"
            )
        # A check on an accelerator would make it wait; there the index itself is checked.
        if t.device.type == "cpu" and t.numel() and not 0 <= int(t.min()) <= int(t.max()) <= self.T:
            raise ValueError(f"t = {t.tolist()} leaves 0..{self.T} of the noise schedule")
        values = table.to(t.device).index_select(0, t.long())
        return values.reshape(-1, *[1] * (ndim - 1))


def _trailing(schedule: NoiseSchedule, count: int) -> list[int]:
    """Step down evenly from T (Lin et al. 2023, Table 2)."""
    return [math.floor(schedule.T * (1 - i / count) + 0.5) for i in range(count)]


def _leading(schedule: NoiseSchedule, count: int) -> list[int]:
    """Step up evenly from t = 2, as latent diffusion does (it counts from 0).

    Where `count` divides T the steps are latent diffusion's. Elsewhere its stride, T // count, fits
    into T more than `count` times, and it takes all of those steps: asked for 30 of 1000 it moves
    31 times, from 992. Here a user gets the moves that were asked for, as from `diffusers`, so the
    noisiest of its steps are left out: 30 moves, from 959. (`codi verify` takes all of them.)
    """
    stride = schedule.T // count
    start = min(2, schedule.T - (count - 1) * stride)
    return [start + i * stride for i in reversed(range(count))]


def _linspace(schedule: NoiseSchedule, count: int) -> list[int]:
    """Space evenly with both ends, T and 1, included (Lin et al. 2023, Table 2)."""
    stride = (schedule.T - 1) / max(count - 1, 1)
    return [math.floor(schedule.T - i * stride + 0.5) for i in range(count)]


def _karras(schedule: NoiseSchedule, count: int) -> list[int]:
    """Space (sigma/alpha)^(1/7) evenly and snap to distinct steps (Karras et al. 2022, Eq. 5)."""
    ratio = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()[1:]  # (T,), step t at t - 1
    ratio = ratio.clamp(max=float(ratio[ratio.isfinite()].max()))
    root = ratio.pow(1 / KARRAS_RHO)
    wanted = torch.lerp(root[-1], root[0], torch.linspace(0, 1, count, dtype=torch.float64))
    nearest = (root[None, :] - wanted[:, None]).abs().argmin(dim=1) + 1  # (count,)
    steps = nearest.tolist()
    steps[0] = schedule.T
    # Push equal neighbours apart from the clean end upwards, then back under the noisy end.
    for i in reversed(range(count)):
        floor = steps[i + 1] + 1 if i + 1 < count else 1
        steps[i] = max(steps[i], floor)
    return [min(step, schedule.T - i) for i, step in enumerate(steps)]


SPACINGS: Final[MappingProxyType[str, Callable[[NoiseSchedule, int], list[int]]]] = (
    MappingProxyType(
        {
            "trailing": _trailing,
            "leading": _leading,
            "ldm": _leading,
            "linspace": _linspace,
            "karras": _karras,
        }
    )
)
"""Spacing -> (schedule, count) -> decreasing steps in 1..T."""

_ENDS: Final = MappingProxyType({"ldm": 1})
"""Spacing -> the step its last move ends at, where that is not clean data. Stable Diffusion and the
released CoDi set alpha_prev[0] = alphas_cumprod[0]."""
