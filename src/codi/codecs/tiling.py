"""Apply an autoencoder to many or large pictures with little memory at a time.

It knows no network: a network is any function of pictures (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]


def in_chunks(network: Network, pictures: Tensor, count: int) -> Tensor:
    """Return `network(pictures)`, computed for `count` pictures at a time."""
    if count >= len(pictures):
        return network(pictures)
    return torch.cat([network(some) for some in pictures.split(count)])


def in_tiles(network: Network, z: Tensor, tile: int, overlap: int) -> Tensor:
    """Return `network(z)`, computed in overlapping square tiles that are blended linearly.

    Exact where the network looks no further than `overlap`; norms and attention over a whole
    picture see one tile of it only.

    Args:
        network: turns maps (N, C, h, w) into pictures of a whole multiple of their size.
        z: maps (N, C, h, w).
        tile: side of a tile, in positions of `z`.
        overlap: what neighbours share at least, in positions of `z`.
    """
    rows, columns = (_starts(size, tile, overlap) for size in z.shape[2:])
    total = weights = None
    for top in rows:
        for left in columns:
            part = z[:, :, top : top + tile, left : left + tile]
            picture = network(part)
            factor = picture.shape[2] // part.shape[2]
            if total is None or weights is None:
                height, width = (size * factor for size in z.shape[2:])
                total = picture.new_zeros(*picture.shape[:2], height, width)
                weights = total.new_zeros((height, width), dtype=torch.float32)
            window = _window(picture, overlap * factor)
            there = (
                slice(top * factor, top * factor + picture.shape[2]),
                slice(left * factor, left * factor + picture.shape[3]),
            )
            total[:, :, *there] += picture * window.to(picture.dtype)
            weights[there] += window
    assert total is not None
    assert weights is not None
    return total.div_(weights)


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along one side; all have the same size, the last one ends at it."""
    if size <= tile:
        return [0]
    count = -(-(size - overlap) // (tile - overlap))
    return [round(i * (size - tile) / (count - 1)) for i in range(count)]


def _window(picture: Tensor, ramp: int) -> Tensor:
    """Return weights (H, W) that rise from the edges of a tile over `ramp` pixels."""
    sides = []
    for size in picture.shape[2:]:
        distance = torch.arange(size, device=picture.device, dtype=torch.float32)
        nearer = torch.minimum(distance, size - 1 - distance) + 0.5
        sides.append((nearer / max(ramp, 1)).clamp_max(1.0))
    return sides[0][:, None] * sides[1]
