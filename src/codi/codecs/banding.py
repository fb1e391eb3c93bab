"""Run a decoder over a large picture in bands of rows, layer by layer: exact, with little memory.

A convolution needs one more row on each side of a band. A group norm needs the mean and deviation
of the whole picture, which are taken first, also in bands; then it is a factor and a summand for
each channel. So nothing but a layer's input and output is ever whole. The result is that of the
layers themselves but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from codi.nn.conv import ResBlock, Upsample

Layer = Callable[[Tensor], Tensor]


def in_bands(layers: nn.Sequential, x: Tensor, positions: int) -> Tensor:
    """Return `layers(x)`, computed for about `positions` pixels of each map at a time.

    Args:
        layers: convolutions of stride 1, residual blocks, upsampling, norms and activations are
            run in bands; whatever else there is, such as attention, sees whole maps.
        x: maps (N, C, H, W).
        positions: pixels of a band of the output of a layer.
    """
    pending: nn.GroupNorm | None = None
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            x = in_bands(layer, x, positions)
        elif isinstance(layer, nn.GroupNorm):
            pending = layer
        elif isinstance(layer, ResBlock):
            x = _residual(layer, x, positions)
        elif isinstance(layer, Upsample):
            x = _over_rows(layer, x, positions, scale=2)
        elif pending is not None:
            x = _over_rows(_normed(pending, x, positions, layer), x, positions)
            pending = None
        elif isinstance(layer, nn.Conv2d):
            x = _over_rows(layer, x, positions)
        else:
            x = layer(x)
    return x if pending is None else pending(x)


def _residual(block: ResBlock, x: Tensor, positions: int) -> Tensor:
    """Return a residual block, without a step, of maps (N, C, H, W)."""

    def first(rows: Tensor) -> Tensor:
        return block.conv_in(block.activation(rows))

    def second(rows: Tensor) -> Tensor:
        return block.conv_out(block.activation(rows))

    hidden = _over_rows(_normed(block.norm_in, x, positions, first), x, positions)
    made = _over_rows(_normed(block.norm_out, hidden, positions, second), hidden, positions)
    del hidden
    for top, bottom in _bands(x, positions):
        made[:, :, top:bottom] += block.skip(x[:, :, top:bottom])
    return made


def _over_rows(layer: Layer, x: Tensor, positions: int, scale: int = 1) -> Tensor:
    """Return a layer that looks one row up and down, of maps (N, C, H, W), band by band.

    Zeros are only padded where the map ends: elsewhere a band has its neighbours' rows, and what
    the layer makes at its ends is left out. The output has `scale` times as many rows.
    """
    made: Tensor | None = None
    height = x.shape[2]
    for top, bottom in _bands(x, positions // scale**2):
        above, below = min(top, 1), min(height - bottom, 1)
        band = layer(x[:, :, top - above : bottom + below])
        if made is None:
            made = band.new_empty(*band.shape[:2], scale * height, band.shape[3])
        made[:, :, scale * top : scale * bottom] = band[
            :, :, scale * above : band.shape[2] - scale * below
        ]
    assert made is not None
    return made


def _bands(x: Tensor, positions: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band of a map, and the one after its last."""
    height, width = x.shape[2:]
    rows = max(positions // width, 1)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _normed(norm: nn.Module, x: Tensor, positions: int, layer: Layer) -> Layer:
    """Return `layer` of some rows as the norm of the whole map (N, C, H, W) makes them."""
    assert isinstance(norm, nn.GroupNorm)
    grouped = (len(x), norm.num_groups, -1)
    count = x[0].numel() // norm.num_groups

    def summed(of: Layer) -> Tensor:
        """Return the sum over each group (N, G, 1); of bands, so that no whole map is made."""
        total = torch.zeros(len(x), norm.num_groups, 1, dtype=torch.float64, device=x.device)
        for top, bottom in _bands(x, positions):
            rows = x[:, :, top:bottom].float().reshape(grouped)
            total += of(rows).sum(2, keepdim=True, dtype=torch.float64)
        return total

    mean = summed(lambda rows: rows) / count
    around = mean.float()
    variance = summed(lambda rows: (rows - around).square()) / count
    each = norm.num_channels // norm.num_groups
    deviation = (variance + norm.eps).sqrt().repeat_interleave(each, dim=1)  # (N, C, 1)
    factor = norm.weight.double()[:, None] / deviation
    summand = norm.bias.double()[:, None] - factor * mean.repeat_interleave(each, dim=1)
    scale, shift = (part.float()[..., None] for part in (factor, summand))

    def of_rows(rows: Tensor) -> Tensor:
        return layer(torch.addcmul(shift, rows.float(), scale).to(rows.dtype))

    return of_rows
