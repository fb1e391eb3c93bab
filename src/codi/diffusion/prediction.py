"""What a diffuser predicts: the noise, the data, or the velocity between them.

Each parameterisation is one row of `PREDICTIONS`. Whatever a network says, the two parts recovered
from it satisfy `z_t = alpha z_0 + sigma epsilon`, at t = 0 (sigma = 0) and at a terminal alpha of 0
too. This module does not know the schedule, the network or the meaning of the latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor


def _quotient(numerator: Tensor, denominator: Tensor, instead: Tensor) -> Tensor:
    """Divide, with `instead` where the denominator is 0, and finite gradients everywhere."""
    empty = denominator == 0
    return torch.where(empty, instead, numerator / denominator.masked_fill(empty, 1.0))


def _from_epsilon(
    output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve for the data (Ho et al. 2020, Eq. 15); without signal it is 0 and z_t is all noise."""
    z0 = _quotient(z_t - sigma * output, alpha, torch.zeros_like(z_t))
    return z0, torch.where(alpha == 0, z_t, output)


def _from_sample(
    output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve for the noise (Salimans & Ho 2022, section 4); without noise z_t is the data."""
    epsilon = _quotient(z_t - alpha * output, sigma, torch.zeros_like(z_t))
    return torch.where(sigma == 0, z_t, output), epsilon


def _from_velocity(
    output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotate (z_t, v) back to data and noise (Salimans & Ho 2022, Appendix D)."""
    return alpha * z_t - sigma * output, sigma * z_t + alpha * output


def _epsilon_target(_z0: Tensor, noise: Tensor, _alpha: Tensor, _sigma: Tensor) -> Tensor:
    """Return the noise (CoDi, Eq. 1)."""
    return noise


def _sample_target(z0: Tensor, _noise: Tensor, _alpha: Tensor, _sigma: Tensor) -> Tensor:
    """Return the clean data."""
    return z0


def _velocity_target(z0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return v = alpha noise - sigma z_0 (Salimans & Ho 2022, section 4)."""
    return alpha * noise - sigma * z0


@dataclass(frozen=True)
class Prediction:
    """Convert between a network's output and the data and noise it stands for.

    alpha and sigma broadcast against the latents, e.g. (B, 1, ..., 1) from `NoiseSchedule.alpha`.

    Attributes:
        recover: (output, z_t, alpha, sigma) -> (z0, epsilon).
        target: (z0, noise, alpha, sigma) -> what the network should say.
        min_snr: (snr, gamma) -> weight of the squared error of the output.

    >>> z0, noise = torch.tensor([2.0]), torch.tensor([-1.0])
    >>> alpha, sigma = torch.tensor([0.8]), torch.tensor([0.6])
    >>> v = PREDICTIONS["velocity"].target(z0, noise, alpha, sigma)
    >>> v
    tensor([-2.])
    >>> PREDICTIONS["velocity"].recover(v, alpha * z0 + sigma * noise, alpha, sigma)
    (tensor([2.]), tensor([-1.]))
    """

    recover: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    min_snr: Callable[[Tensor, float], Tensor]


PREDICTIONS: Final = MappingProxyType(
    {
        "epsilon": Prediction(
            recover=_from_epsilon,
            target=_epsilon_target,
            # min(snr, gamma) / snr, written so that snr = 0 gives 1 and infinity gives 0.
            min_snr=lambda snr, gamma: (gamma / snr).clamp(max=1.0),
        ),
        "sample": Prediction(
            recover=_from_sample,
            target=_sample_target,
            min_snr=lambda snr, gamma: snr.clamp(max=gamma),
        ),
        "velocity": Prediction(
            recover=_from_velocity,
            target=_velocity_target,
            min_snr=lambda snr, gamma: snr.clamp(max=gamma) / (snr + 1),
        ),
    }
)
"""Name of a parameterisation -> its conversions."""


def uniform_weight(snr: Tensor, _prediction: str, _gamma: float = 5.0) -> Tensor:
    """Weigh every step alike, L_simple of Ho et al. 2020, Eq. 14; snr (B,) -> ones (B,)."""
    return torch.ones_like(snr)


def min_snr_weight(snr: Tensor, prediction: str, gamma: float = 5.0) -> Tensor:
    """Weigh the loss by min(SNR, gamma) in terms of the data (Hang et al. 2023, section 3.4).

    Args:
        snr: (B,) signal-to-noise ratios; infinite at t = 0.
        prediction: a key of `PREDICTIONS`; an error of the output is worth 1 (sample), 1 / SNR
            (epsilon) or 1 / (SNR + 1) (velocity) times the same error of the data.
        gamma: cap on the ratio.

    >>> min_snr_weight(torch.tensor([0.0, 1.0, 20.0, torch.inf]), "epsilon")
    tensor([1.0000, 1.0000, 0.2500, 0.0000])
    """
    return PREDICTIONS[prediction].min_snr(snr, gamma)


LOSS_WEIGHTS: Final[MappingProxyType[str, Callable[..., Tensor]]] = MappingProxyType(
    {"uniform": uniform_weight, "min_snr": min_snr_weight}
)
"""Name -> (snr (B,), prediction, gamma) -> weights (B,) of the squared errors."""
