"""Attention: what depends on what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from codi.nn import attention
from codi.nn.attention import (
    SHORT,
    Attention,
    EnvironmentAttention,
    FeedForward,
    TransformerLayer,
    attend,
    attend_in_slices,
    causal_bias,
)
from tests.small import awake


def _environment_attention() -> EnvironmentAttention:
    return EnvironmentAttention(width=8, environment_width=6, heads=2, head_width=4)


@pytest.mark.parametrize("keys", [2, SHORT, SHORT + 1])
def test_both_ways_to_attend_are_one(keys: int) -> None:
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, keys, 4), torch.randn(2, 3, keys, 4)
    bias = torch.randn(3, 5, keys)
    expected = scaled_dot_product_attention(q, k, v, attn_mask=bias)
    torch.testing.assert_close(attend(q, k, v, bias), expected)


@pytest.mark.parametrize("size", [1, 500, 700, 1_500, 10_000])
def test_attention_in_slices_is_attention(size: int) -> None:
    """One query at a time, several of one head, one head, two of three, and all at once."""
    q, k, v = (torch.randn(2, 3, length, 4) for length in (11, 15, 15))
    found = attend_in_slices(q, k, v, size)
    torch.testing.assert_close(found, scaled_dot_product_attention(q, k, v))
    assert found.transpose(1, 2).flatten(2).data_ptr() == found.data_ptr()  # a view, no copy


def test_cpus_with_vectors_of_bfloat16_alone_attend_in_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q, k, v = (torch.randn(1, 2, 2 * SHORT, 4, dtype=torch.bfloat16) for _ in range(3))
    expected, slices = scaled_dot_product_attention(q, k, v), []

    def sliced(*given: object) -> Tensor:
        slices.append(given)
        return attend_in_slices(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "attend_in_slices", sliced)
    for vectors in (False, True):
        monkeypatch.setattr(attention, "only_vectors_of_bfloat16", lambda x=vectors: x)
        assert attend(q, k, v).requires_grad is False
        with torch.no_grad():
            torch.testing.assert_close(attend(q, k, v), expected, rtol=0.02, atol=0.01)
        assert len(slices) == int(vectors)


def test_what_is_compiled_or_broadcast_is_not_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    def sliced(*_: object) -> Tensor:
        raise AssertionError("sliced")

    monkeypatch.setattr(attention, "attend_in_slices", sliced)
    monkeypatch.setattr(attention, "only_vectors_of_bfloat16", lambda: True)
    q, k = (torch.randn(n, 2, 2 * SHORT, 4, dtype=torch.bfloat16) for n in (2, 1))
    with torch.no_grad():
        assert attend(q, k, k).shape == q.shape
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert attend(q, q, q).shape == q.shape


def test_queries_keys_and_values_have_a_bias_where_asked() -> None:
    with_bias, without = Attention(8, 6, 2, 4, bias=True), Attention(8, 6, 2, 4)
    found = {name for name, _ in with_bias.named_parameters()}
    extra = found - {name for name, _ in without.named_parameters()}
    assert extra == {"to_q.bias", "to_k.bias", "to_v.bias"}


def test_one_token_of_context_ignores_the_query() -> None:
    attention, context = Attention(8, 6, heads=2, head_width=4), torch.randn(3, 1, 6)
    expected = attention.to_out(attention.to_v(context))
    for x in (torch.randn(3, 7, 8), torch.randn(3, 7, 8)):
        assert torch.equal(attention(x, context), expected)


def test_one_token_is_what_the_softmax_over_one_token_gives() -> None:
    attention = Attention(8, 6, heads=2, head_width=4)
    x, context = torch.randn(3, 7, 8), torch.randn(3, 1, 6)
    twice = attention(x, context.expand(-1, 2, -1))  # two equal tokens share the weight
    torch.testing.assert_close(attention(x, context).expand_as(twice), twice)


@pytest.mark.parametrize("tokens", [1, 3])
def test_fused_projections_are_two_in_one(tokens: int) -> None:
    fused, apart = (Attention(8, 6, heads=2, head_width=4, fused=f) for f in (True, False))
    fused.to_q, fused.to_out.weight = apart.to_q, apart.to_out.weight
    torch.nn.init.zeros_(apart.to_out.bias)
    fused.to_kv.weight = torch.nn.Parameter(torch.cat([apart.to_k.weight, apart.to_v.weight]))
    x, source = torch.randn(2, 5, 8), torch.randn(2, tokens, 6)
    torch.testing.assert_close(fused(x, source), apart(x, source).expand(2, 5, 8))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("tokens", [1, 3])
def test_a_projected_source_gives_the_same_bits(tokens: int, fused: bool) -> None:
    attention = Attention(8, 6, heads=2, head_width=4, fused=fused)
    x, source = torch.randn(3, 5, 8), torch.randn(3, tokens, 6)
    projected = attention.project(source)
    assert torch.equal(attention(x, projected), attention(x, source))
    torch.testing.assert_close(attention(x[:2], projected.first(2)), attention(x[:2], source[:2]))


def test_several_tokens_are_told_apart_by_the_query() -> None:
    attention, context = Attention(8, 6, heads=2, head_width=4), torch.randn(1, 3, 6)
    first, second = attention(torch.randn(1, 2, 8), context)[0]
    assert not torch.allclose(first, second)


def test_environment_attention_starts_as_nothing() -> None:
    attention = _environment_attention()
    times = torch.linspace(0, 2, 5), torch.linspace(0, 2, 4)
    assert not attention(torch.randn(2, 5, 8), torch.randn(2, 4, 6), *times).any()


def test_environment_attention_weighs_near_slots_more() -> None:
    attention = _environment_attention()
    slots = torch.tensor([0.25, 0.75, 1.25, 1.75])
    bias = attention.time_bias(slots, slots)  # (heads, L, K)
    assert bias.shape == (2, 4, 4)
    assert torch.equal(bias.argmax(-1), torch.arange(4).expand(2, 4))
    assert (bias[:, 0].diff() < 0).all()


def test_environment_attention_can_look_to_one_side() -> None:
    attention = _environment_attention()
    slots = torch.tensor([0.25, 0.75, 1.25, 1.75])
    with torch.no_grad():
        attention.offset_s.fill_(0.5)  # half a second before its own instant
    assert attention.time_bias(slots, slots)[0, 2].argmax() == 1


def _reply_to_slot(slot: int) -> Tensor:
    """Return how much each query (L,) feels a change of one slot."""
    attention = awake(_environment_attention())
    with torch.no_grad():
        attention.log_rate.fill_(5.0)
    times = torch.tensor([0.25, 0.75, 1.25, 1.75])
    x, environment = torch.randn(1, 4, 8), torch.randn(1, 4, 6)
    changed = environment.clone()
    changed[:, slot] += 1.0
    before, after = (attention(x, e, times, times) for e in (environment, changed))
    return (after - before).abs().sum(-1)[0]


@pytest.mark.parametrize("slot", range(4))
def test_a_slot_is_heard_at_its_own_time(slot: int) -> None:
    assert _reply_to_slot(slot).argmax() == slot


def test_queries_without_time_see_all_slots_alike() -> None:
    attention = awake(_environment_attention())
    x, environment = torch.randn(1, 3, 8), torch.randn(1, 4, 6)
    shuffled = environment[:, [2, 0, 3, 1]]
    torch.testing.assert_close(
        attention(x, environment, None, torch.arange(4.0)),
        attention(x, shuffled, None, torch.arange(4.0)),
    )


def test_a_pooled_environment_tells_nothing_of_time() -> None:
    attention = awake(_environment_attention())
    out = attention(torch.randn(2, 5, 8), torch.randn(2, 1, 6), torch.arange(5.0), torch.ones(1))
    assert out.shape == (2, 1, 8)


def test_one_head_has_a_window_too() -> None:
    attention = EnvironmentAttention(width=4, environment_width=4, heads=1, head_width=4)
    assert attention.time_bias(torch.zeros(2), torch.zeros(3)).shape == (1, 2, 3)


def test_the_future_is_hidden() -> None:
    layer = TransformerLayer(width=8, heads=2)
    x = torch.randn(1, 5, 8)
    changed = x.clone()
    changed[:, 3:] += 1.0
    bias = causal_bias(5)
    torch.testing.assert_close(layer(x, bias)[:, :3], layer(changed, bias)[:, :3])
    assert not torch.allclose(layer(x, bias)[:, 3:], layer(changed, bias)[:, 3:])


def test_memory_is_seen_by_every_token() -> None:
    layer = TransformerLayer(width=8, heads=2)
    x, memory = torch.randn(1, 5, 8), torch.randn(1, 1, 8)
    bias = causal_bias(5, memory=1)
    difference = layer(x, bias, memory) - layer(x, bias, memory + 1.0)
    assert difference.abs().sum(-1).gt(0).all()


def test_a_token_is_fed_forward_alone() -> None:
    layer, x = FeedForward(8), torch.randn(2, 5, 8)
    torch.testing.assert_close(layer(x)[:, 2:3], layer(x[:, 2:3]))
