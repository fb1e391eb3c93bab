"""Samplers: from noise to data with any callable that guesses the clean data.

A sampler knows a denoiser `(z (B, N), t) -> z_0 (B, N)`, a decreasing list of steps and the
schedule they refer to; all streams inside the vector share that schedule. Latents are float32 (or
wider, if given so); coefficients are computed in float64. This module does not know networks,
prompts, guidance or what the vector holds, and leaves gradients to its caller.

All samplers have one signature, `Sampler`, and are listed in `SAMPLERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Protocol

import torch
from torch import Tensor

from codi.diffusion.schedule import NoiseSchedule

Denoiser = Callable[[Tensor, int], Tensor]
"""(z_t (B, N), t) -> estimate of z_0 (B, N)."""

NoiseDraw = Callable[[int], Tensor]
"""Index of a draw -> standard normal noise (B, N); the samplers use index i + 1 for move i."""

Callback = Callable[[int, int, int, Tensor, Tensor], None]
"""(index of the move, number of moves, step t reached, z at t, estimate of z_0)."""


class Sampler(Protocol):
    """The signature that all samplers share."""

    def __call__(
        self,
        denoise: Denoiser,
        z: Tensor,
        timesteps: Sequence[int],
        schedule: NoiseSchedule,
        *,
        eta: float | None = None,
        noise: NoiseDraw | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Carry z (B, N) from timesteps[0] to timesteps[-1].

        Args:
            denoise: the guess of the clean data.
            z: (B, N) latents at step timesteps[0]; standard normal noise for generation.
            timesteps: strictly decreasing steps in 0..T, as from `NoiseSchedule.timesteps`.
            schedule: what the steps mean.
            eta: share of fresh noise; None for the sampler's own.
            noise: source of the fresh noise, needed where eta > 0.
            callback: called after every move.

        Returns:
            (B, N) latents at step timesteps[-1].

        Raises:
            ValueError: for steps that do not decrease within 0..T, an eta that the sampler does
                not have, a missing noise source, or a denoiser that changes the shape.
        """


@dataclass(frozen=True)
class _Move:
    """One step of a sampler, from t down to s, with its coefficients in float64."""

    index: int
    count: int
    t: int
    s: int
    alpha_t: float
    sigma_t: float
    alpha_s: float
    sigma_s: float


def _moves(timesteps: Sequence[int], schedule: NoiseSchedule) -> Iterator[_Move]:
    """Pair the neighbours of the steps, after checking all of them."""
    pairs = list(pairwise(timesteps))
    if not pairs or any(t <= s for t, s in pairs):
        raise ValueError(
            f"timesteps {list(timesteps)} must be at least two and strictly decreasing; "
            "make them with NoiseSchedule.timesteps"
        )
    levels = [schedule.level(t) for t in timesteps]
    for index, (t, s) in enumerate(pairs):
        yield _Move(index, len(pairs), t, s, *levels[index], *levels[index + 1])


def _estimate(denoise: Denoiser, z: Tensor, t: int) -> Tensor:
    """Ask the denoiser, and keep the working precision."""
    z0 = denoise(z, t)
    if z0.shape != z.shape:
        raise ValueError(
            f"the denoiser made {tuple(z0.shape)} of {tuple(z.shape)} at t = {t}; "
            "it must keep the shape"
        )
    return z0.to(z.dtype)


def _working(z: Tensor) -> Tensor:
    """Widen half precision to float32."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def _transfer(z: Tensor, z0: Tensor, move: _Move, direction: float) -> Tensor:
    """Return alpha_s z_0 + direction epsilon, with epsilon = (z - alpha_t z_0) / sigma_t."""
    ratio = direction / move.sigma_t
    return ratio * z + (move.alpha_s - ratio * move.alpha_t) * z0


def _refuse_eta(name: str, eta: float | None, own: float) -> None:
    """Refuse an eta that the sampler `name` does not have."""
    if eta is not None and eta != own:
        raise ValueError(
            f"eta = {eta}, but sampler {name!r} has eta = {own:g}; leave eta out, or use "
            + " or ".join(sorted(TAKES_ETA))
        )


def _checked_eta(eta: float | None, noise: NoiseDraw | None) -> float:
    """Return eta, 0 by default, of a sampler that has one."""
    eta = 0.0 if eta is None else eta
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}; choose 0 (deterministic) to 1 (ancestral)")
    if eta > 0 and noise is None:
        raise ValueError(f"eta is {eta}, which needs fresh noise; give noise=, or set eta to 0")
    return eta


def sample_ddim(
    denoise: Denoiser,
    z: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float | None = None,
    noise: NoiseDraw | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample with DDIM (Song et al. 2021a, Eq. 12 and 16); see `Sampler`. One evaluation a move.

    eta = 0, the default, is deterministic; eta = 1 is ancestral sampling (DDPM).
    """
    eta = _checked_eta(eta, noise)
    z = _working(z)
    for move in _moves(timesteps, schedule):
        z0 = _estimate(denoise, z, move.t)
        kept = (move.alpha_t / move.alpha_s) ** 2
        fresh = eta * move.sigma_s / move.sigma_t * math.sqrt(1 - kept)
        z = _transfer(z, z0, move, math.sqrt(max(move.sigma_s**2 - fresh**2, 0.0)))
        if noise is not None and fresh > 0:
            z = z + fresh * noise(move.index + 1).to(z)
        if callback is not None:
            callback(move.index, move.count, move.s, z, z0)
    return z


def sample_ddpm(
    denoise: Denoiser,
    z: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float | None = None,
    noise: NoiseDraw | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample the ancestors one by one (Ho et al. 2020, Eq. 7; CoDi, Eq. 2); see `Sampler`.

    It is DDIM with eta = 1. One evaluation a move.
    """
    _refuse_eta("ddpm", eta, own=1.0)
    return sample_ddim(denoise, z, timesteps, schedule, eta=1.0, noise=noise, callback=callback)


def sample_euler(
    denoise: Denoiser,
    z: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float | None = None,
    noise: NoiseDraw | None = None,  # noqa: ARG001 - one signature for all
    callback: Callback | None = None,
) -> Tensor:
    """Follow the probability flow by Euler steps in sigma/alpha; see `Sampler`.

    With y = z / alpha and s = sigma / alpha the flow is dy/ds = epsilon (Song et al. 2021a, Eq. 14;
    Karras et al. 2022, Eq. 4). Its Euler step is DDIM's with eta = 0. One evaluation a move, first
    order.
    """
    _refuse_eta("euler", eta, own=0.0)
    z = _working(z)
    for move in _moves(timesteps, schedule):
        z0 = _estimate(denoise, z, move.t)
        z = _transfer(z, z0, move, move.sigma_s)
        if callback is not None:
            callback(move.index, move.count, move.s, z, z0)
    return z


def sample_heun(
    denoise: Denoiser,
    z: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float | None = None,
    noise: NoiseDraw | None = None,  # noqa: ARG001 - one signature for all
    callback: Callback | None = None,
) -> Tensor:
    """Follow the probability flow by Heun steps (Karras et al. 2022, Algorithm 1); see `Sampler`.

    Two evaluations a move, second order. A move to t = 0, and one from alpha = 0, is an Euler step,
    since the slope has no meaning there.
    """
    _refuse_eta("heun", eta, own=0.0)
    z = _working(z)
    for move in _moves(timesteps, schedule):
        z0 = _estimate(denoise, z, move.t)
        ahead = _transfer(z, z0, move, move.sigma_s)
        if move.s > 0 and move.alpha_t > 0:
            slope = (z - move.alpha_t * z0) / move.sigma_t
            z0 = _estimate(denoise, ahead, move.s)
            slope_ahead = (ahead - move.alpha_s * z0) / move.sigma_s
            width = move.sigma_s - move.sigma_t * move.alpha_s / move.alpha_t
            ahead = ahead + 0.5 * width * (slope_ahead - slope)
        z = ahead
        if callback is not None:
            callback(move.index, move.count, move.s, z, z0)
    return z


def sample_dpmpp_2m(
    denoise: Denoiser,
    z: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float | None = None,
    noise: NoiseDraw | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample with DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2); see `Sampler`.

    One evaluation a move, second order in lambda = log(alpha / sigma). The first move, and one to
    t = 0, where lambda is infinite, are of first order. eta = 0, the default, is deterministic;
    eta = 1 is SDE-DPM-Solver++(2M) (Lu et al. 2022, section 5): fresh noise at every move, so that
    later estimates mend what earlier ones got wrong. Its move of first order is DDPM's.
    """
    eta = _checked_eta(eta, noise)
    z = _working(z)
    previous: Tensor | None = None
    width_before = math.inf
    for move in _moves(timesteps, schedule):
        z0 = _estimate(denoise, z, move.t)
        width = _log_ratio(move.alpha_s, move.sigma_s) - _log_ratio(move.alpha_t, move.sigma_t)
        forward = z0
        if previous is not None and move.s > 0:
            forward = z0 + width / (2 * width_before) * (z0 - previous)
        kept = math.exp(-eta * width) if eta > 0 else 1.0  # of the noise in z
        z = _transfer(z, forward, move, move.sigma_s * kept)
        if noise is not None and kept < 1 and move.s > 0:
            z = z + move.sigma_s * math.sqrt(1 - kept**2) * noise(move.index + 1).to(z)
        previous, width_before = z0, width
        if callback is not None:
            callback(move.index, move.count, move.s, z, z0)
    return z


def sample_unipc(
    denoise: Denoiser,
    z: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float | None = None,
    noise: NoiseDraw | None = None,  # noqa: ARG001 - one signature for all
    callback: Callback | None = None,
) -> Tensor:
    """Sample with UniPC-2, B(h) = exp(h) - 1 (Zhao et al. 2023, Algorithms 5 and 6); see `Sampler`.

    DPM-Solver++(2M)'s prediction, corrected at the next move with the evaluation that is made there
    anyway, which gives third order. One evaluation a move. Moves from alpha = 0 are not corrected,
    and the one to t = 0 is of first order.
    """
    _refuse_eta("unipc", eta, own=0.0)
    z = _working(z)
    last: _Predicted | None = None
    for move in _moves(timesteps, schedule):
        z0 = _estimate(denoise, z, move.t)
        if last is not None:
            z = last.corrected(z, z0)
        last = _Predicted(z, z0, move, last)
        z = last.predicted()
        if callback is not None:
            callback(move.index, move.count, move.s, z, z0)
    return z


class _Predicted:
    """One move of UniPC: where it began, its estimate there, and the move before."""

    def __init__(self, z: Tensor, z0: Tensor, move: _Move, last: _Predicted | None) -> None:
        self.z, self.z0, self.move = z, z0, move
        self.width = _log_ratio(move.alpha_s, move.sigma_s) - _log_ratio(move.alpha_t, move.sigma_t)
        # D_1 / r_1 of the paper: how the estimate changed over a move of this width.
        self.backward: tuple[float, Tensor] | None = None
        if last is not None and math.isfinite(last.width):
            ratio = -last.width / self.width
            self.backward = ratio, (last.z0 - z0) / ratio if ratio else torch.zeros_like(z0)

    def predicted(self) -> Tensor:
        """Return the latent at the end of the move (Eq. 8 of order 2)."""
        forward = self.z0
        if self.backward is not None and self.move.s > 0:
            forward = forward + 0.5 * self.backward[1]
        return self._moved(forward)

    def corrected(self, z: Tensor, z0: Tensor) -> Tensor:
        """Return the latent there again, now that the estimate `z0` at `z` is known (Eq. 3)."""
        if not math.isfinite(self.width):
            return z
        change = z0 - self.z0
        if self.backward is None:
            return self._moved(self.z0 + 0.5 * change)
        ratio, slope = self.backward
        # rho solves sum rho = b_1, sum r rho = b_2 (Eq. 5), with r = (ratio, 1).
        h, share = -self.width, math.expm1(-self.width)
        first = (share / h - 1.0) / share
        second = 2.0 * ((share / h - 1.0) / h - 0.5) / share
        own = (second - ratio * first) / (1.0 - ratio)
        return self._moved(self.z0 + (first - own) * slope + own * change)

    def _moved(self, forward: Tensor) -> Tensor:
        return _transfer(self.z, forward, self.move, self.move.sigma_s)


def _log_ratio(alpha: float, sigma: float) -> float:
    """Return lambda = log(alpha / sigma), with its limits where one of them is 0."""
    if sigma == 0:
        return math.inf
    return math.log(alpha / sigma) if alpha > 0 else -math.inf


SAMPLERS: Final[MappingProxyType[str, Sampler]] = MappingProxyType(
    {
        "ddim": sample_ddim,
        "ddpm": sample_ddpm,
        "euler": sample_euler,
        "heun": sample_heun,
        "dpmpp_2m": sample_dpmpp_2m,
        "unipc": sample_unipc,
    }
)
"""Name -> sampler."""

TAKES_ETA: Final = frozenset({"ddim", "dpmpp_2m"})
"""Samplers that add as much fresh noise as they are asked to; others have an eta of their own."""

_SECOND_EVALUATION: Final = frozenset({"heun"})


def evaluations(name: str, steps: int) -> int:
    """Count the calls of the denoiser for `steps` moves that end at t = 0.

    One fewer for "heun" on a schedule with zero terminal SNR.

    >>> evaluations("dpmpp_2m", 20), evaluations("heun", 20)
    (20, 39)
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; use one of {', '.join(SAMPLERS)}")
    return 2 * steps - 1 if name in _SECOND_EVALUATION else steps
