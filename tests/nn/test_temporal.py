"""Temporal attention and shift (CoDi, 3.3, Figures 6 and 7)."""

from __future__ import annotations

import pytest
import torch

from codi.nn.temporal import TemporalBlock, TemporalConfig, temporal_shift
from tests.small import awake


@pytest.mark.parametrize(("frames", "chunks"), [(8, 8), (16, 8), (3, 8), (1, 4), (5, 1)])
def test_chunk_i_moves_forward_by_i_frames(frames: int, chunks: int) -> None:
    x = torch.randn(2, frames, 16, 3, 3)
    shifted = temporal_shift(x, chunks)
    assert shifted.shape == x.shape
    for i, (before, after) in enumerate(
        zip(x.chunk(chunks, dim=2), shifted.chunk(chunks, dim=2), strict=True)
    ):
        assert not after[:, :i].any()  # nothing comes in from before the clip
        assert torch.equal(after[:, i:], before[:, : max(frames - i, 0)])


def test_the_first_chunk_stays() -> None:
    x = torch.randn(1, 4, 8)
    assert torch.equal(temporal_shift(x, 8)[:, :, 0], x[:, :, 0])


def _block() -> TemporalBlock:
    return TemporalBlock(
        16, heads=2, head_width=8, duration_s=2.0, config=TemporalConfig(shift_chunks=4), groups=8
    )


def test_a_temporal_block_starts_as_the_identity() -> None:
    x = torch.randn(2 * 5, 16, 3, 3)
    assert torch.equal(_block()(x, frames=5), x)


def test_frames_of_one_clip_see_each_other_and_no_other_clip() -> None:
    block, x = awake(_block()), torch.randn(2 * 5, 16, 3, 3)
    changed = x.clone()
    changed[2] += 1.0  # frame 2 of the first clip
    difference = (block(changed, frames=5) - block(x, frames=5)).unflatten(0, (2, 5))
    assert difference[0].flatten(1).abs().sum(1).gt(0).all()
    torch.testing.assert_close(difference[1], torch.zeros_like(difference[1]))


def test_temporal_attention_knows_when_a_frame_is() -> None:
    block = awake(_block())
    same = torch.randn(1, 16, 3, 3).expand(5, -1, -1, -1).clone()
    same[0] += 1.0
    seen = block(same, frames=5)[1:]
    assert not torch.allclose(seen[0], seen[1], atol=1e-5)
