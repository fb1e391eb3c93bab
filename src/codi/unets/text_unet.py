"""The text diffuser: the same UNet on a sentence's one latent vector (B, D).

The vector is laid out as a few positions of several channels, and the UNet's convolutions become
one-dimensional (CoDi, section 3.3: "the 2D convolution in residual blocks is replaced with 1D
convolution"; z-shape 768 x 1 x 1 in Table 12). Levels widen without changing resolution. In the
released CoDi, whose text diffuser is Versatile Diffusion's, they are linear layers over all
channels and positions instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from codi.nn.conv import zeroed
from codi.unets.prepared import Context, PreparedContext
from codi.unets.reuse import DeepFeatures
from codi.unets.unet import UNet, UNetConfig


@dataclass(frozen=True)
class TextUNetConfig:
    """A UNet for vectors: `latent_width` numbers laid out on `positions` positions.

    Its blocks are a "convolution" along the positions (the paper) or "fully_connected" (the
    released CoDi).
    """

    latent_width: int
    positions: int
    unet: UNetConfig
    blocks: Literal["convolution", "fully_connected"] = "convolution"

    @property
    def inner(self) -> UNetConfig:
        """Return the UNet between both ends."""
        own: dict[str, dict[str, Any]] = {
            "convolution": {"kernel": (1, 3), "resample": False},
            "fully_connected": {"positions": self.positions},
        }
        return replace(self.unet, time_axis="none", **own[self.blocks])

    def build(self) -> TextUNet:
        """Return the network with fresh weights."""
        return TextUNet(self)


class TextUNet(nn.Module):
    """Predict from (z_t (B, D), t, context, environment) a vector (B, D)."""

    reuses_inside = True
    """Whether `forward` can keep `DeepFeatures`."""

    def __init__(self, config: TextUNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.unet.latent_channels * config.positions
        self.to_positions = nn.Linear(config.latent_width, width)
        self.unet = UNet(config.inner)
        self.to_vector = nn.Linear(width, config.latent_width)
        if config.blocks == "fully_connected":  # it is the last layer, with nothing before it
            zeroed(self.to_vector)

    def embed_step(self, t: Tensor) -> Tensor:
        """Return the embedding (B, D) of steps `t` (B,); see `UNet.embed_step`."""
        return self.unet.embed_step(t)

    def prepare(self, context: Tensor, steps: Sequence[int] = ()) -> PreparedContext:
        """Return what this network computes of prompts (B, L, D) alone; see `UNet.prepare`."""
        return self.unet.prepare(context, steps)

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        context: Context,
        environment: Tensor | None = None,
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        """Return the prediction (B, D); see `UNet.forward`."""
        laid_out = self.to_positions(z_t).unflatten(1, (-1, 1, 1, self.config.positions))
        return self.to_vector(self.unet(laid_out, t, context, environment, deep).flatten(1))
