"""Inception v3 as FID and the Inception Score take it (Szegedy et al., 2016; Heusel et al., 2017).

The network of TensorFlow's file of 2015-12-05 with 1008 classes, as published for PyTorch: average
pools that leave the border out, and a maximum in the last pool. State-dict names are those of
torchvision's, which the published files share. Built here from the paper's tables, because the
libraries that hold it want torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

from codi.config import ConfigError
from codi.evaluation.extractors.base import Extractor, file_digest, float32, pixels_of, weights_file

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
"""The usual file of the weights (github.com/mseitzer/pytorch-fid); torch-fidelity's, called
weights-inception-2015-12-05-6726825d.pth, has the same names and numbers."""

SIZE_PX = 299

Conv = tuple[str, int, tuple[int, int]] | tuple[str, int, tuple[int, int], int]
"""(name, channels, kernel[, stride]); a stride of 2 goes without padding."""

_ONE, _THREE, _FIVE = (1, 1), (3, 3), (5, 5)
_ROW, _COLUMN = (1, 7), (7, 1)


class _Branch:
    """One way through a block: a pool or none, convolutions, and what they part into at the end."""

    def __init__(self, *convs: Conv, pool: str = "", parts: Sequence[Conv] = ()) -> None:
        self.convs, self.pool, self.parts = convs, pool, parts


def _squares(pooled: int) -> list[_Branch]:
    """Return the blocks on 35 × 35 (the paper's figure 5)."""
    return [
        _Branch(("branch1x1", 64, _ONE)),
        _Branch(("branch5x5_1", 48, _ONE), ("branch5x5_2", 64, _FIVE)),
        _Branch(
            ("branch3x3dbl_1", 64, _ONE),
            ("branch3x3dbl_2", 96, _THREE),
            ("branch3x3dbl_3", 96, _THREE),
        ),
        _Branch(("branch_pool", pooled, _ONE), pool="mean"),
    ]


def _strips(width: int) -> list[_Branch]:
    """Return the blocks on 17 × 17 (figure 6), with n = 7."""
    down = [("branch7x7dbl_1", width, _ONE)]
    down += [(f"branch7x7dbl_{i}", width, _COLUMN if i % 2 == 0 else _ROW) for i in (2, 3, 4)]
    return [
        _Branch(("branch1x1", 192, _ONE)),
        _Branch(
            ("branch7x7_1", width, _ONE),
            ("branch7x7_2", width, _ROW),
            ("branch7x7_3", 192, _COLUMN),
        ),
        _Branch(*down, ("branch7x7dbl_5", 192, _ROW)),
        _Branch(("branch_pool", 192, _ONE), pool="mean"),
    ]


def _spread(pool: str) -> list[_Branch]:
    """Return the blocks on 8 × 8 (figure 7)."""
    ends = [("a", (1, 3)), ("b", (3, 1))]
    return [
        _Branch(("branch1x1", 320, _ONE)),
        _Branch(
            ("branch3x3_1", 384, _ONE),
            parts=[(f"branch3x3_2{letter}", 384, kernel) for letter, kernel in ends],
        ),
        _Branch(
            ("branch3x3dbl_1", 448, _ONE),
            ("branch3x3dbl_2", 384, _THREE),
            parts=[(f"branch3x3dbl_3{letter}", 384, kernel) for letter, kernel in ends],
        ),
        _Branch(("branch_pool", 192, _ONE), pool=pool),
    ]


_BLOCKS: dict[str, list[_Branch]] = {
    "Mixed_5b": _squares(32),
    "Mixed_5c": _squares(64),
    "Mixed_5d": _squares(64),
    "Mixed_6a": [
        _Branch(("branch3x3", 384, _THREE, 2)),
        _Branch(
            ("branch3x3dbl_1", 64, _ONE),
            ("branch3x3dbl_2", 96, _THREE),
            ("branch3x3dbl_3", 96, _THREE, 2),
        ),
        _Branch(pool="halved"),
    ],
    "Mixed_6b": _strips(128),
    "Mixed_6c": _strips(160),
    "Mixed_6d": _strips(160),
    "Mixed_6e": _strips(192),
    "Mixed_7a": [
        _Branch(("branch3x3_1", 192, _ONE), ("branch3x3_2", 320, _THREE, 2)),
        _Branch(
            ("branch7x7x3_1", 192, _ONE),
            ("branch7x7x3_2", 192, _ROW),
            ("branch7x7x3_3", 192, _COLUMN),
            ("branch7x7x3_4", 192, _THREE, 2),
        ),
        _Branch(pool="halved"),
    ],
    "Mixed_7b": _spread("mean"),
    "Mixed_7c": _spread("greatest"),
}

_POOLS = {
    "": lambda x: x,
    "mean": lambda x: avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "greatest": lambda x: max_pool2d(x, 3, 1, 1),
    "halved": lambda x: max_pool2d(x, 3, 2),
}


class _Unit(nn.Module):
    """Convolution, batch norm, and what is above zero."""

    def __init__(
        self, before: int, width: int, kernel: tuple[int, int], stride: int, padded: bool
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(before, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Several ways beside each other, their channels one after the other."""

    def __init__(self, before: int, branches: Sequence[_Branch], divisor: int) -> None:
        super().__init__()
        self.branches = branches
        self.width = 0
        for branch in branches:
            last = before
            for conv in branch.convs:
                last = self._add(last, conv, divisor)
            for conv in branch.parts:
                self.width += self._add(last, conv, divisor)
            self.width += 0 if branch.parts else last

    def _add(self, before: int, conv: Conv, divisor: int) -> int:
        name, width, kernel, *rest = conv
        stride = rest[0] if rest else 1
        self.add_module(name, _Unit(before, width // divisor, kernel, stride, stride == 1))
        return width // divisor

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for branch in self.branches:
            y = _POOLS[branch.pool](x)
            for name, *_ in branch.convs:
                y = self.get_submodule(name)(y)
            found += [self.get_submodule(name)(y) for name, *_ in branch.parts] or [y]
        return torch.cat(found, 1)


class InceptionNetwork(nn.Module):
    """Pictures (B, 3, 299, 299) from -1 to 1 to pooled features (B, 2048).

    Args:
        divisor: of all widths; 1 for the published weights, more for small tests.
    """

    def __init__(self, divisor: int = 1) -> None:
        super().__init__()
        d = divisor
        self.Conv2d_1a_3x3 = _Unit(3, 32 // d, _THREE, 2, padded=False)
        self.Conv2d_2a_3x3 = _Unit(32 // d, 32 // d, _THREE, 1, padded=False)
        self.Conv2d_2b_3x3 = _Unit(32 // d, 64 // d, _THREE, 1, padded=True)
        self.Conv2d_3b_1x1 = _Unit(64 // d, 80 // d, _ONE, 1, padded=False)
        self.Conv2d_4a_3x3 = _Unit(80 // d, 192 // d, _THREE, 1, padded=False)
        width = 192 // d
        for name, branches in _BLOCKS.items():
            block = _Mixed(width, branches, d)
            self.add_module(name, block)
            width = block.width
        self.fc = nn.Linear(width, 1008)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features that the last average leaves."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, 2)))
        x = max_pool2d(x, 3, 2)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Return scores (B, 1008) without the bias, as the Inception Score takes them."""
        return features @ self.fc.weight.T


def resized(x: Tensor, size_px: int = SIZE_PX) -> Tensor:
    """Return pictures (B, C, H, W) as TensorFlow 1 resizes them: bilinear, corner to corner.

    Pixel i of the result is at i * H / size of the original, without half a pixel of shift and
    without a filter; other resizings change FID (Parmar et al., 2022).
    """
    for axis in (2, 3):
        length = x.shape[axis]
        at = torch.arange(size_px, dtype=torch.float64) * (length / size_px)
        low = at.floor().long().clamp(max=length - 1)
        high = (low + 1).clamp(max=length - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = size_px
        share = (at - low).to(x).view(shape)
        x = torch.lerp(
            x.index_select(axis, low.to(x.device)), x.index_select(axis, high.to(x.device)), share
        )
    return x


class InceptionExtractor(Extractor):
    """Features (n, 2048) and logits (n, 1008) of pictures.

    Args:
        source: file or folder of the published weights.
        device: where to compute.
        divisor: see `InceptionNetwork`.

    Raises:
        ConfigError: no such file, or tensors of another network in it.
    """

    name = "inception"
    preprocessing = "bilinear to 299 px as TensorFlow 1 does it, (x - 128) / 128"
    gives = ("features", "logits")

    def __init__(self, source: str, device: str = "cpu", divisor: int = 1) -> None:
        path = weights_file(self.name, source, WEIGHTS)
        self.source, self.digest = source, file_digest(path)
        self.device = device
        self.network = InceptionNetwork(divisor)
        _fill(self.network, path)
        self.network.eval().to(device)

    @torch.no_grad()
    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return features and logits of n pictures."""
        if modality != "image":
            raise self.refuse(modality, "image")
        x = torch.cat([resized(pixels_of([item])[:, :, 0]) for item in items])
        features = self.network((x.to(self.device) - 128.0) / 128.0)
        return {"features": float32(features), "logits": float32(self.network.logits(features))}


def _fill(network: nn.Module, path: Path) -> None:
    """Load weights; counters of batch norms and auxiliary classifiers are not needed."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(f"{path}: is no file of weights ({type(error).__name__})") from error
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors and "num_batches" not in name]
    wrong = [n for n in wanted if n in tensors and tensors[n].shape != wanted[n].shape]
    for problem, names in (("lacks", missing), ("has another shape of", wrong)):
        if names:
            raise ConfigError(f"{path}: {problem} {names[0]}; give {WEIGHTS}")
    network.load_state_dict({n: tensors[n] for n in wanted if n in tensors}, strict=False)
