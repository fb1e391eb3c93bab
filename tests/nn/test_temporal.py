"""Temporal attention and shift (CoDi, 3.3, Figures 6 and 7)."""

from __future__ import annotations

import pytest
import torch

from codi.nn.temporal import (
    ClampedNorm,
    FramePosition,
    ShiftedFeedForward,
    TemporalBlock,
    TemporalConfig,
    temporal_shift,
)
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


PAPER = TemporalConfig(shift_chunks=4)
RELEASED = TemporalConfig(
    shift_chunks=4,
    place="after",
    position="index",
    norm="time",
    feed_forward=True,
    fused=True,
    heads=2,
    head_divisor=4,
)
both = pytest.mark.parametrize("config", [PAPER, RELEASED], ids=["paper", "released"])


def _block(config: TemporalConfig = PAPER) -> TemporalBlock:
    heads, width = config.split(16, lambda _channels: (2, 8))
    return TemporalBlock(16, heads, width, duration_s=2.0, config=config, groups=8)


@both
def test_a_temporal_block_starts_as_the_identity(config: TemporalConfig) -> None:
    x = torch.randn(2 * 5, 16, 3, 3)
    assert torch.equal(_block(config)(x, frames=5), x)


@both
def test_frames_of_one_clip_see_each_other_and_no_other_clip(config: TemporalConfig) -> None:
    block, x = awake(_block(config)), torch.randn(2 * 5, 16, 3, 3)
    changed = x.clone()
    changed[2] += 1.0 + torch.rand(16, 3, 3)  # frame 2 of the first clip
    difference = (block(changed, frames=5) - block(x, frames=5)).unflatten(0, (2, 5))
    assert difference[0].flatten(1).abs().sum(1).gt(0).all()
    torch.testing.assert_close(difference[1], torch.zeros_like(difference[1]))


@both
def test_temporal_attention_knows_when_a_frame_is(config: TemporalConfig) -> None:
    block = awake(_block(config))
    same = torch.randn(1, 16, 3, 3).expand(5, -1, -1, -1).clone()
    same[0] += torch.rand(16, 3, 3)
    seen = block(same, frames=5)[1:]
    assert not torch.allclose(seen[0], seen[1], atol=1e-5)


@both
def test_linear_layers_over_time_read_no_views(config: TemporalConfig) -> None:
    """Of a view in three axes torch would repeat their weights for every position."""
    block, laid_out = awake(_block(config)), []
    for layer in block.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, given: laid_out.append(given[0]))
    block(torch.randn(5, 16, 3, 3).to(memory_format=torch.channels_last), frames=5)
    assert len(laid_out) > 3
    assert all(x.is_contiguous() for x in laid_out)


def test_heads_of_the_temporal_attention_may_be_its_own() -> None:
    assert RELEASED.split(32, lambda channels: (1, channels)) == (2, 8)
    assert TemporalConfig(heads=4).split(32, lambda channels: (1, channels)) == (4, 8)
    assert PAPER.split(32, lambda channels: (1, channels)) == (1, 32)


@pytest.mark.parametrize("axis", [1, -1])
def test_the_released_norm_standardises_one_axis(axis: int) -> None:
    normed = ClampedNorm(16, axis)(3.0 + 2.0 * torch.randn(4, 64, 16))
    assert normed.mean(axis).abs().max() < 1e-5
    torch.testing.assert_close(normed.var(axis, correction=0), torch.ones(normed.mean(axis).shape))
    still = torch.full((4, 64, 16), 3.0)  # where nothing varies, nothing is divided by zero
    assert not ClampedNorm(16, axis)(still).any()


def test_the_frame_table_says_when_a_clip_is_too_long() -> None:
    position = FramePosition(16, 2, RELEASED)
    assert position(30).shape == (30, 16)
    with pytest.raises(ValueError, match="31 frames, but the table has 30"):
        position(31)


def test_the_frame_bias_depends_on_distance_and_direction() -> None:
    bias = FramePosition(16, 2, RELEASED).bias(5)
    assert bias.shape == (2, 5, 5)
    for offset in range(-4, 5):
        diagonal = bias.diagonal(offset, 1, 2)
        torch.testing.assert_close(diagonal, diagonal[:, :1].expand_as(diagonal))
    assert not torch.allclose(bias[:, 0, 1], bias[:, 1, 0])


def test_a_shifted_feed_forward_reads_this_frame_and_the_one_before() -> None:
    layer, x = awake(ShiftedFeedForward(16)), torch.randn(1, 5, 16)
    changed = x.clone()
    changed[:, 2] += 1.0
    moved = (layer(changed) - layer(x)).abs().sum(-1)[0]
    assert moved.gt(1e-6).tolist() == [False, False, True, True, False]


def test_a_shifted_feed_forward_in_sixteen_bits_is_that_of_thirty_two() -> None:
    """Its norm has another eps in 16 bits, which small inputs would show."""
    layer, x = awake(ShiftedFeedForward(64)), 0.05 * torch.randn(2, 5, 64)
    wide = layer(x)
    error = (layer.bfloat16()(x.bfloat16()).float() - wide).std() / wide.std()
    assert error < 0.03
