"""Pictures in chunks and tiles: exact for a network that looks no further than the overlap."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from codi.codecs.tiling import in_chunks, in_tiles


def _local(z: Tensor) -> Tensor:
    """Double the size and blur over a neighbour on each side."""
    doubled = interpolate(z, scale_factor=2.0, mode="nearest")
    return avg_pool2d(doubled, 3, stride=1, padding=1, count_include_pad=False)


@pytest.mark.parametrize("size", [(8, 8), (21, 8), (8, 30), (21, 30), (9, 17), (3, 40)])
@pytest.mark.parametrize("overlap", [0, 2, 4])
def test_every_position_is_there_once(size: tuple[int, int], overlap: int) -> None:
    z = torch.randn(2, 3, *size)
    torch.testing.assert_close(in_tiles(lambda x: x, z, 8, overlap), z)


def test_tiles_differ_from_the_whole_at_most_where_they_end() -> None:
    z = torch.randn(1, 2, 20, 28)
    error = (in_tiles(_local, z, 8, 4) - _local(z)).abs()
    apart = in_tiles(_local, z, 8, 0) - _local(z)
    assert error.max() < 0.2 * apart.abs().max()
    assert (error > 1e-5).float().mean() < 0.5


def test_a_tile_sees_no_more_than_itself() -> None:
    seen: list[torch.Size] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x.shape)
        return _local(x)

    in_tiles(network, torch.randn(1, 2, 20, 28), 8, 2)
    assert set(seen) == {(1, 2, 8, 8)}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_chunks_are_the_whole(count: int) -> None:
    z = torch.randn(5, 2, 4, 4)
    assert torch.equal(in_chunks(_local, z, count), _local(z))
