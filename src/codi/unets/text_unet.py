"""The text diffuser: the same UNet on a sentence's one latent vector (B, D).

The vector is laid out as a few positions of several channels, and the UNet's convolutions become
one-dimensional (CoDi, section 3.3: "the 2D convolution in residual blocks is replaced with 1D
convolution"; z-shape 768 x 1 x 1 in Table 12). Levels widen without changing resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from codi.unets.unet import UNet, UNetConfig


@dataclass(frozen=True)
class TextUNetConfig:
    """A UNet for vectors: `latent_width` numbers laid out on `positions` positions."""

    latent_width: int
    positions: int
    unet: UNetConfig

    def build(self) -> TextUNet:
        """Return the network with fresh weights."""
        return TextUNet(self)


class TextUNet(nn.Module):
    """Predict from (z_t (B, D), t, context, environment) a vector (B, D)."""

    def __init__(self, config: TextUNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.unet.latent_channels
        self.to_positions = nn.Linear(config.latent_width, channels * config.positions)
        self.unet = UNet(replace(config.unet, kernel=(1, 3), resample=False, time_axis="none"))
        self.to_vector = nn.Linear(channels * config.positions, config.latent_width)

    def forward(
        self, z_t: Tensor, t: Tensor, context: Tensor, environment: Tensor | None = None
    ) -> Tensor:
        """Return the prediction (B, D); see `UNet.forward`."""
        laid_out = self.to_positions(z_t).unflatten(1, (-1, 1, 1, self.config.positions))
        return self.to_vector(self.unet(laid_out, t, context, environment).flatten(1))
