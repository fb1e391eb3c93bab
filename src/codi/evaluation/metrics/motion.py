"""How much a clip moves from frame to frame, by block matching. Knows no sound and no metric.

Every pixel takes the whole-pixel step under which its neighbourhood is found again best; the
smaller step where two fit as well, so that flat areas stand still.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

REACH_PX = 7
BLOCK_PX = 7
SIDE_PX = 64
"""Longest side that clips are shrunk to first: steps are counted in pixels of this size."""

_STEP_COST = 1e-3
"""Difference in grey (0 to 1) that a pixel of step has to earn."""


def grey(frames: np.ndarray, side_px: int = SIDE_PX) -> Tensor:
    """Return uint8 frames (F, H, W, 3) as grey (F, 1, H', W') from 0 to 1, at most `side_px`."""
    x = torch.from_numpy(np.ascontiguousarray(frames)).float().permute(0, 3, 1, 2) / 255.0
    x = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    scale = side_px / max(x.shape[2:])
    if scale >= 1.0:
        return x
    size = [max(round(length * scale), 1) for length in x.shape[2:]]
    return interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def _blurred(x: Tensor, side: int) -> Tensor:
    """Return the mean of (F, 1, H, W) over squares, by running sums: as fast for any side."""
    half = side // 2
    for axis, around in ((2, (0, 0, half + 1, half)), (3, (half + 1, half, 0, 0))):
        sums = pad(x, around, mode="replicate").cumsum(axis)
        length = x.shape[axis]
        x = (sums.narrow(axis, side, length) - sums.narrow(axis, 0, length)) / side
    return x


def optical_flow(
    frames: np.ndarray, reach_px: int = REACH_PX, block_px: int = BLOCK_PX, side_px: int = SIDE_PX
) -> np.ndarray:
    """Return the steps (F - 1, 2, H', W'), down and to the right, from each frame to the next.

    Args:
        frames: uint8 (F, H, W, 3).
        reach_px: longest step that is looked for, in either direction.
        block_px: side of the neighbourhood that is compared; odd.
        side_px: longest side that frames are shrunk to first.

    Raises:
        ValueError: fewer than two frames.
    """
    if len(frames) < 2:
        raise ValueError(f"{len(frames)} frames do not move; give at least 2")
    x = grey(frames, side_px)
    before, after = x[:-1], x[1:]
    height, width = x.shape[2:]
    around = pad(after, (reach_px,) * 4, mode="replicate")
    best = torch.full_like(before, torch.inf)
    steps = before.new_zeros(len(before), 2, height, width)
    reach = range(-reach_px, reach_px + 1)
    for step in sorted(((d, r) for d in reach for r in reach), key=lambda s: s[0] ** 2 + s[1] ** 2):
        down, right = step
        top, left = reach_px + down, reach_px + right
        moved = around[:, :, top : top + height, left : left + width]
        difference = _blurred((moved - before).abs(), block_px)
        cost = difference + _STEP_COST * (down**2 + right**2) ** 0.5
        better = cost < best
        best = torch.where(better, cost, best)
        steps = torch.where(better, torch.tensor(step).view(1, 2, 1, 1).to(steps), steps)
    return steps.numpy()


def motion(frames: np.ndarray) -> np.ndarray:
    """Return the mean length (F - 1,) of the steps from each frame to the next."""
    return np.linalg.norm(optical_flow(frames), axis=1).mean(axis=(1, 2))
