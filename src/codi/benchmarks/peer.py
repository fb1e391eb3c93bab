"""The UNet of `diffusers` with the weights of ours: what image diffusers are compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from codi.config import ConfigError
from codi.convert.unets import stable_diffusion_diffusers
from codi.unets.unet import UNet


def diffusers_twin(unet: nn.Module, z_t: Tensor) -> Any:
    """Return a `UNet2DConditionModel` that shares the weights of a UNet; it takes single pictures.

    Args:
        unet: ours, which may have temporal blocks and environment attention beside.
        z_t: what it is to denoise, (B, C, 1, H, W).

    Raises:
        ConfigError: `diffusers` is not installed, or has no network like this one.
    """
    if not isinstance(unet, UNet) or z_t.shape[2] > 1 or unet.config.heads is None:
        raise ConfigError(
            "diffusers has no network like this stream's; compare an image or audio stream of the "
            "presets release and stable-diffusion"
        )
    try:
        from diffusers import UNet2DConditionModel
    except ImportError as error:
        raise ConfigError(
            'to compare with diffusers, install it: pip install "codi[external]"'
        ) from error
    c = unet.config
    kinds = ["CrossAttn" if attends else "" for attends in c.attention]
    with torch.device("meta"):
        twin = UNet2DConditionModel(
            in_channels=c.latent_channels,
            out_channels=c.latent_channels,
            block_out_channels=[c.channels * m for m in c.multipliers],
            down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
            layers_per_block=c.depths[0],
            attention_head_dim=c.heads,
            cross_attention_dim=c.context_width,
            norm_num_groups=c.groups,
        )
    table, state = stable_diffusion_diffusers(c), unet.state_dict()
    shared = {name: table.to_foreign(name, state) for name in twin.state_dict()}
    twin.load_state_dict(shared, assign=True)
    return twin.eval().requires_grad_(False)
