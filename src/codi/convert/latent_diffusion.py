"""What the layouts of latent diffusion models have in common: Stable Diffusion's and others'."""

from __future__ import annotations

from typing import Any

VISION = ("image", "video")
"""The modalities that share the networks for pictures."""

SCHEDULE = dict.fromkeys(
    (
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_*alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_*",
        "logvar",
    ),
    "follows from the noise schedule",
)
"""The buffers of a noise schedule, which the networks' files hold with them."""

LATENT_DIFFUSION = {
    **SCHEDULE,
    "scale_factor": "a setting of the codec",
    "model_ema.*": "averages of the same weights; give the file that holds only those to use them",
}
"""What checkpoints of latent diffusion's training hold beside the networks."""

AUTOENCODER_CLASS = {"vae": ("diffusers", "AutoencoderKL")}
"""The folder of a pipeline's autoencoder, and what loads it."""

WIDTHS = "the library's autoencoder has as many channels before its latent as in it"


def has_one_width(config: Any) -> bool:
    """Say whether an autoencoder is one that the library can load; where not, for `WIDTHS`."""
    return getattr(config, "inner_channels", None) is None
