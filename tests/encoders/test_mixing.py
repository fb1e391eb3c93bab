"""Contexts of several prompts become one."""

from __future__ import annotations

import pytest
import torch

from codi.config import ConfigError
from codi.encoders.mixing import interpolated, of_one_length
from codi.nn.attention import Attention


def test_sequences_interpolate_token_by_token() -> None:
    one, other = torch.randn(2, 2, 5, 3)
    torch.testing.assert_close(interpolated([one, other], [0.3, 0.7]), 0.3 * one + 0.7 * other)


def test_one_token_is_mixed_with_every_token() -> None:
    token, sequence = torch.randn(2, 1, 3), torch.randn(2, 5, 3)
    mixed = interpolated([token, sequence], [0.25, 0.75])
    for i in range(5):
        torch.testing.assert_close(mixed[:, i], 0.25 * token[:, 0] + 0.75 * sequence[:, i])


def test_the_whole_weight_on_one_prompt_is_that_prompt() -> None:
    token, sequence = torch.randn(2, 1, 3), torch.randn(2, 5, 3)
    assert torch.equal(interpolated([token, sequence], [0.0, 1.0]), sequence)


@torch.no_grad()
def test_a_repeated_token_says_to_attention_what_the_token_says() -> None:
    attention = Attention(8, 3, 2, 4).eval()
    x, token = torch.randn(2, 6, 8), torch.randn(2, 1, 3)
    repeated, _ = of_one_length([token, torch.randn(2, 5, 3)])
    assert repeated.shape == (2, 5, 3)
    torch.testing.assert_close(attention(x, repeated), attention(x, token).expand_as(x))


def test_sequences_of_two_lengths_are_refused() -> None:
    contexts = [torch.zeros(1, length, 3) for length in (5, 1, 77)]
    with pytest.raises(ConfigError, match="prompts of 5 and 77 tokens cannot be mixed"):
        interpolated(contexts, [0.2, 0.4, 0.4])
