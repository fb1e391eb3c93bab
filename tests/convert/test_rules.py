from __future__ import annotations

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
