"""Weights laid out once for the CPU's own kernels, for inference alone.

A convolution or a linear layer on a CPU multiplies blocks of its weights, and brings them into that
order on every call. Where maps are small or vectors few, that costs more than the multiplication:
here it is done once. The numbers stay those of the layer up to rounding; gradients and the names
of the weights are gone. Convolutions also keep pictures channels-last, in which a picture is a
sequence of tokens without a copy, and all layers after them follow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from codi.nn.conv import Dense
from codi.nn.embedding import StepEmbedding

_kernels = torch.ops.mkldnn


def packable(dtype: torch.dtype, device: torch.device) -> bool:
    """Say whether this machine has kernels for packed weights of this kind."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and bool(_kernels._is_mkldnn_bf16_supported())
    )


class PackedLinear(nn.Module):
    """A linear layer whose weights are packed at its first call, and no longer stored plainly.

    Weights (D', D) may have further axes of one element.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.plain: Tensor | None = layer.weight.detach().flatten(1)
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., D') for `x` (..., D)."""
        if self.packed is None:
            assert self.plain is not None
            rows = x.numel() // x.shape[-1]
            self.packed = _kernels._reorder_linear_weight(self.plain.contiguous(), rows)
            self.plain = None
        return _kernels._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class PackedPointwise(nn.Module):
    """A convolution of one pixel: a linear layer on the channels of every position."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.linear = PackedLinear(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H, W), channels-last, for `x` (B, C, H, W)."""
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PackedConv2d(nn.Module):
    """A convolution whose weights are packed at its first call, and no longer stored plainly."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.plain: Tensor | None = layer.weight.detach()
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.geometry: list[Any] = [layer.padding, layer.stride, layer.dilation, layer.groups]
        self.packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H', W'), channels-last, for `x` (B, C, H, W)."""
        x = x.contiguous(memory_format=torch.channels_last)
        if self.packed is None:
            assert self.plain is not None
            self.packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                self.plain.to_mkldnn(),
                *self.geometry,
                x.shape,  # type: ignore[call-arg]
            )
            self.plain = None
        return _kernels._convolution_pointwise(
            x, self.packed, self.bias, *self.geometry, "none", [], ""
        )


def pack(module: nn.Module) -> None:
    """Replace the convolutions and linear layers inside `module`, which then has no gradients.

    Layers that no kernel takes stay as they are; other devices than the CPU need no more than
    channels-last convolutions.
    """
    for name, layer in module.named_children():
        elsewhere = isinstance(layer, nn.Conv2d) and layer.weight.device.type != "cpu"
        if elsewhere and type(layer.weight) is nn.Parameter:  # not one that is held narrow
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        packed = _packed(layer)
        if packed is not None:
            setattr(module, name, packed)
        elif not isinstance(layer, StepEmbedding):  # it asks its layers for their dtype
            pack(layer)


def _packed(layer: nn.Module) -> nn.Module | None:
    """Return what takes the place of one layer, or None to leave it."""
    weight = getattr(layer, "weight", None)
    # Weights held in another type than they are computed in are meant to stay as they are.
    if type(weight) is not nn.Parameter or not packable(weight.dtype, weight.device):
        return None
    if isinstance(layer, Dense):
        return nn.Sequential(
            nn.Flatten(), PackedLinear(layer), nn.Unflatten(1, (-1, 1, layer.into))
        )
    if type(layer) is nn.Linear:
        return PackedLinear(layer)
    if type(layer) is nn.Conv2d and (layer.padding_mode, type(layer.padding)) == ("zeros", tuple):
        geometry = (layer.kernel_size, layer.stride, layer.padding, layer.groups)
        pointwise = geometry == ((1, 1), (1, 1), (0, 0), 1)
        return PackedPointwise(layer) if pointwise else PackedConv2d(layer)
    return None
