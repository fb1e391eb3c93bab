"""The mathematics of diffusion: schedules, parameterisations, samplers, guidance, product space.

Tensors, and the settings that say how they are sampled. Nothing here knows a network, a prompt, a
modality or a file.
"""

from codi.diffusion.guidance import GuidanceRule, combine, rescale
from codi.diffusion.prediction import LOSS_WEIGHTS, PREDICTIONS, Prediction
from codi.diffusion.sampling import (
    SAMPLERS,
    TAKES_ETA,
    Callback,
    Denoiser,
    NoiseDraw,
    Sampler,
    evaluations,
    sample_ddim,
    sample_ddpm,
    sample_dpmpp_2m,
    sample_euler,
    sample_heun,
)
from codi.diffusion.schedule import BETAS, SPACINGS, NoiseSchedule
from codi.diffusion.space import Noise, NoiseSource, ProductSpace

__all__ = [
    "BETAS",
    "LOSS_WEIGHTS",
    "PREDICTIONS",
    "SAMPLERS",
    "SPACINGS",
    "TAKES_ETA",
    "Callback",
    "Denoiser",
    "GuidanceRule",
    "Noise",
    "NoiseDraw",
    "NoiseSchedule",
    "NoiseSource",
    "Prediction",
    "ProductSpace",
    "Sampler",
    "combine",
    "evaluations",
    "rescale",
    "sample_ddim",
    "sample_ddpm",
    "sample_dpmpp_2m",
    "sample_euler",
    "sample_heun",
]
