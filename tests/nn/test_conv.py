"""Convolutional blocks: sizes, and branches that start as nothing."""

from __future__ import annotations

import pytest
import torch

from codi.nn.conv import ConvFeatures, Dense, Downsample, ResBlock, Upsample, conv, group_norm


@pytest.mark.parametrize(
    ("channels", "groups", "expected"), [(64, 32, 32), (48, 32, 24), (8, 32, 4), (7, 4, 1)]
)
def test_group_norm_takes_the_most_groups_that_fit(
    channels: int, groups: int, expected: int
) -> None:
    assert group_norm(channels, groups).num_groups == expected


def test_a_group_may_be_one_channel_where_asked() -> None:
    assert group_norm(32, 32, group_channels=1).num_groups == 32


@pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (1, 1)])
def test_a_convolution_keeps_the_size(kernel: tuple[int, int]) -> None:
    assert conv(4, 6, kernel)(torch.randn(2, 4, 5, 7)).shape == (2, 6, 5, 7)


def test_a_residual_block_starts_as_the_identity() -> None:
    x, step = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    assert torch.equal(ResBlock(8, 8, step_width=16)(x, step), x)


def test_on_one_position_a_convolution_is_a_linear_layer() -> None:
    """A residual block without a kernel is the one of 1 x 1 convolutions on 1 x 1 maps."""
    dense, point = ResBlock(8, 6, 16, kernel=None), ResBlock(8, 6, 16, kernel=(1, 1))
    torch.nn.init.normal_(point.conv_out.weight)
    own = {
        name: x.reshape(dense.state_dict()[name].shape) for name, x in point.state_dict().items()
    }
    dense.load_state_dict(own)
    x, step = torch.randn(3, 8), torch.randn(3, 16)
    torch.testing.assert_close(dense(x, step), point(x[:, :, None, None], step)[:, :, 0, 0])


def test_a_dense_layer_connects_everything_channel_by_channel() -> None:
    layer, x = Dense(3, 5, positions=4, into=2), torch.randn(2, 3, 1, 4)
    made = layer(x)
    assert made.shape == (2, 5, 1, 2)
    expected = torch.nn.functional.linear(x.reshape(2, 12), layer.weight, layer.bias)
    assert torch.equal(made.reshape(2, 10), expected)


def test_a_residual_block_reads_the_step() -> None:
    block, x = ResBlock(8, 4, step_width=16), torch.randn(2, 8, 4, 4)
    torch.nn.init.normal_(block.conv_out.weight)
    assert not torch.allclose(block(x, torch.zeros(2, 16)), block(x, torch.ones(2, 16)))


def test_sizes_are_halved_and_doubled() -> None:
    x = torch.randn(2, 4, 8, 6)
    assert Downsample(4)(x).shape == (2, 4, 4, 3)
    assert Upsample(4)(x).shape == (2, 4, 16, 12)


def test_asymmetric_zeros_shift_what_is_seen_by_a_pixel() -> None:
    x, plain, shifted = torch.randn(1, 2, 8, 8), Downsample(2), Downsample(2, asymmetric=True)
    shifted.load_state_dict(plain.state_dict())
    moved = torch.nn.functional.pad(x, (1, 0, 1, 0))[..., :8, :8]
    torch.testing.assert_close(shifted(x)[..., :-1, :-1], plain(moved)[..., 1:, 1:])


def test_features_shrink_by_patch_and_stages() -> None:
    features = ConvFeatures(3, (8, 16), patch=4)
    assert features(torch.randn(2, 3, 64, 32)).shape == (2, 16, 4, 2)


def test_a_block_that_knows_no_step_projects_none() -> None:
    with pytest.raises(ValueError, match="knows no step; build it with a `step_width`"):
        ResBlock(8, 8).project(torch.zeros(1, 16))
