"""Convolutional blocks on pictures (B, C, H, W). They know no modality and no diffusion.

Where space has no meaning, a convolution gives way to a linear layer: `conv` with the kernel None
on vectors (B, C), `Dense` on all channels and positions of a map at once.
"""

from __future__ import annotations

from typing import NamedTuple, overload

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, pixel_unshuffle

Kernel = tuple[int, int]
"""Height and width of a convolution."""


def group_norm(
    channels: int, groups: int = 32, eps: float = 1e-5, group_channels: int = 2
) -> nn.GroupNorm:
    """Return a group norm with the largest number of groups up to `groups` that fits.

    A group has two channels at least: alone, a channel would lose its mean, and with it the step
    embedding that a residual block adds. Latent diffusion does not care (`group_channels` = 1),
    which only shows in networks of fewer than 64 channels.
    """
    count = max(min(groups, channels // group_channels), 1)
    while channels % count:
        count -= 1
    return nn.GroupNorm(count, channels, eps=eps)


@overload
def conv(source: int, target: int, kernel: Kernel = (3, 3), stride: int = 1) -> nn.Conv2d: ...
@overload
def conv(
    source: int, target: int, kernel: Kernel | None, stride: int = 1
) -> nn.Conv2d | nn.Linear: ...
def conv(
    source: int, target: int, kernel: Kernel | None = (3, 3), stride: int = 1
) -> nn.Conv2d | nn.Linear:
    """Return a convolution that keeps the size (divided by `stride`).

    Without a kernel it is a linear layer, for vectors (B, C).
    """
    if kernel is None:
        return nn.Linear(source, target)
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(source, target, kernel, stride=stride, padding=padding)


def zeroed(module: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Set a layer's weights to zero, so that the residual branch it closes starts as nothing."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class Dense(nn.Linear):
    """Connect all channels and positions of a map with all of another, keeping no space.

    Numbers are counted channel by channel, as `flatten` does.
    """

    def __init__(self, source: int, target: int, positions: int, into: int) -> None:
        super().__init__(source * positions, target * into)
        self.into = into

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, target, 1, into) for `x` (B, source, ...) of `positions` positions."""
        return super().forward(x.flatten(1)).unflatten(1, (-1, 1, self.into))


class Shift(NamedTuple):
    """What one residual block adds for a step, (B, C') or (1, C'), made by its `project`."""

    added: Tensor


class ResBlock(nn.Module):
    """Residual block: norm, SiLU, convolution, twice, with the step embedding added between.

    As in DDPM and Stable Diffusion; without `step_width` it is the block of the autoencoders.
    `groups`, `eps` and `group_channels` are those of its norms (`group_norm`). Without a kernel it
    works on vectors (B, C), with linear layers.
    """

    def __init__(
        self,
        source: int,
        target: int,
        step_width: int | None = None,
        kernel: Kernel | None = (3, 3),
        groups: int = 32,
        eps: float = 1e-5,
        group_channels: int = 2,
    ) -> None:
        super().__init__()
        self.norm_in = group_norm(source, groups, eps, group_channels)
        self.conv_in = conv(source, target, kernel)
        self.step = nn.Linear(step_width, target) if step_width else None
        self.norm_out = group_norm(target, groups, eps, group_channels)
        self.conv_out = zeroed(conv(target, target, kernel))
        point = None if kernel is None else (1, 1)
        self.skip = conv(source, target, point) if source != target else nn.Identity()
        self.activation = nn.SiLU()

    def project(self, step: Tensor) -> Shift:
        """Return what the block adds for step embeddings (B, D).

        Raises:
            ValueError: a block that knows no step.
        """
        if self.step is None:
            raise ValueError("this residual block knows no step; build it with a `step_width`")
        return Shift(self.step(self.activation(step)))

    def forward(self, x: Tensor, step: Tensor | Shift | None = None) -> Tensor:
        """Return (B, C', H, W) for `x` (B, C, H, W) and the step embedding (B, D); or vectors.

        The embedding may be projected already. One of fewer rows serves as many pictures each: the
        frames of a clip.
        """
        hidden = self.conv_in(self.activation(self.norm_in(x)))
        if step is not None:
            added = (step if isinstance(step, Shift) else self.project(step)).added
            added = added.repeat_interleave(len(hidden) // len(added), dim=0)
            hidden = hidden + (added if hidden.ndim == 2 else added[:, :, None, None])
        return self.skip(x) + self.conv_out(self.activation(self.norm_out(hidden)))


class Downsample(nn.Module):
    """Halve height and width by a strided convolution.

    With `asymmetric` the zeros lie below and to the right only, as in Stable Diffusion's
    autoencoder: every output then looks one pixel further down and to the right.
    """

    def __init__(self, channels: int, kernel: Kernel = (3, 3), asymmetric: bool = False) -> None:
        super().__init__()
        self.conv = conv(channels, channels, kernel, stride=2)
        self.after = (0, kernel[1] // 2, 0, kernel[0] // 2) if asymmetric else None
        if asymmetric:
            self.conv.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H/2, W/2)."""
        return self.conv(x if self.after is None else pad(x, self.after))


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels: int, kernel: Kernel = (3, 3)) -> None:
        super().__init__()
        self.conv = conv(channels, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, 2H, 2W)."""
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


class ConvFeatures(nn.Module):
    """Strided convolutions on pictures (B, C, H, W): each stage halves the size."""

    def __init__(self, channels: int, widths: tuple[int, ...], patch: int = 1) -> None:
        super().__init__()
        self.patch = patch
        layers: list[nn.Module] = []
        now = channels * patch**2
        for width in widths:
            layers += [conv(now, width, stride=2), group_norm(width, 8), nn.SiLU()]
            layers += [conv(width, width), group_norm(width, 8), nn.SiLU()]
            now = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, widths[-1], H / f, W / f)."""
        return self.layers(pixel_unshuffle(x, self.patch))
