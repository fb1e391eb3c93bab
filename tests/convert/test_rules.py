from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from codi.config import ConfigError
from codi.convert.rules import (
    POINTWISE,
    POINTWISE_2D,
    SAME,
    TRANSPOSED,
    Layout,
    Rule,
    Table,
    below,
    joined,
)

TABLE = Table(
    (
        *below("down.0", "input_blocks.1", [Rule("norm", "0"), Rule("out", "3", POINTWISE)]),
        Rule("down.0.out.bias", "input_blocks.1.3.bias"),
    ),
    unused={"*.position_ids": "a constant"},
    fresh={"*.temporal.*": "the identity"},
)


@pytest.mark.parametrize(
    ("ours", "foreign", "layout"),
    [
        ("down.0.norm.weight", "input_blocks.1.0.weight", SAME),
        ("down.0.out.weight", "input_blocks.1.3.weight", POINTWISE),
        ("down.0.out.bias", "input_blocks.1.3.bias", SAME),
    ],
)
def test_names_go_both_ways_and_the_longest_rule_decides(
    ours: str, foreign: str, layout: Layout
) -> None:
    assert TABLE.foreign(ours) == (foreign, layout)
    assert TABLE.ours(foreign) == (ours, layout)


def test_names_end_at_dots() -> None:
    assert TABLE.ours("input_blocks.10.0.weight") is None


@pytest.mark.parametrize("layout", [SAME, POINTWISE, POINTWISE_2D, TRANSPOSED])
def test_every_layout_is_invertible(layout: Layout) -> None:
    ours = torch.randn(3, 5)
    assert torch.equal(layout.to_ours(layout.to_foreign(ours)), ours)


def test_what_has_no_counterpart_has_a_reason() -> None:
    assert TABLE.why_unused("embeddings.position_ids") == "a constant"
    assert TABLE.why_unused("embeddings.weight") is None
    assert TABLE.why_fresh("down.0.temporal.norm.weight") == "the identity"
    assert TABLE.why_fresh("down.0.norm.weight") is None


def test_a_table_that_cannot_be_read_backwards_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"two rules for a"):
        Table((Rule("a", "x"), Rule("a", "y")))


JOINED = Table(
    (
        Rule("attention", "attn"),
        *below("attention", "attn", joined(["q", "k", "v"], "qkv")),
        *below("decoder", "c_attn", joined(["q", "k"], "both")),
    ),
    unused={"attn.mask": "follows from the sizes"},
)


def test_a_foreign_layer_may_be_several_of_ours() -> None:
    foreign = torch.randn(6, 5)
    state = JOINED.to_ours("attn.qkv.weight", foreign)
    assert list(state) == ["attention.q.weight", "attention.k.weight", "attention.v.weight"]
    assert torch.equal(JOINED.to_foreign("attn.qkv.weight", state), foreign)
    found = JOINED.foreign("attention.k.weight")
    assert found is not None
    assert found[0] == "attn.qkv.weight"
    assert torch.equal(found[1].to_ours(foreign), foreign[2:4])
    assert JOINED.ours("attn.qkv.weight") is None


def test_rows_are_those_of_our_layout() -> None:
    table = Table(tuple(replace(rule, layout=TRANSPOSED) for rule in joined(["q", "k"], "qk")))
    foreign = torch.randn(3, 8)
    state = table.to_ours("qk.weight", foreign)
    assert state["k.weight"].shape == (4, 3)
    assert torch.equal(table.to_foreign("qk.weight", state), foreign)


def test_what_is_unused_has_no_name_here() -> None:
    assert JOINED.ours("attn.mask") is None
    assert JOINED.ours("attn.norm") == ("attention.norm", SAME)
    with pytest.raises(KeyError):
        JOINED.to_foreign("other.weight", {})


def test_a_share_that_is_missing_is_refused() -> None:
    with pytest.raises(ConfigError, match="shares of qkv"):
        Table(joined(["q", "k", "v"], "qkv")[:2])
