from __future__ import annotations

import pytest
import torch
from torch import nn

from codi.convert import fresh
from codi.convert.fresh import fresh_values, shapes_of
from codi.nn.conv import zeroed
from tests.small import small_config


class _Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.big = nn.Linear(64, 64)
        self.branch = zeroed(nn.Linear(8, 8))
        self.tied = nn.Linear(64, 64, bias=False)
        self.tied.weight = self.big.weight
        self.register_buffer("scale", torch.full((3,), 0.5))
        self.position = nn.Parameter(torch.randn(4, 8) * 0.02)


def test_values_are_those_that_the_part_begins_with() -> None:
    names = ["scale", "branch.weight", "position", "tied.weight"]
    made = dict(fresh_values(_Part, names, "seed"))
    assert made.keys() == set(names)
    assert torch.equal(made["scale"], torch.full((3,), 0.5))
    assert not made["branch.weight"].any()
    assert 0.01 < float(made["position"].std()) < 0.03
    assert float(made["tied.weight"].abs().max()) <= 1 / 8
    assert float(made["tied.weight"].std()) > 0.05


def test_the_same_seed_is_the_same_part_and_groups_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "GROUP_BYTES", 1)
    one, two, other = (dict(fresh_values(_Part, ["position", "big.weight"], s)) for s in "aab")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["position"], other["position"])
    before = torch.get_rng_state()
    list(fresh_values(_Part, ["position"], "a"))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_but_the_group_is_ever_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[nn.Module] = []

    def build() -> nn.Module:
        kept.append(_Part())
        return kept[-1]

    list(fresh_values(build, ["branch.weight"], "a"))
    real = [name for name, value in kept[-1].named_parameters() if not value.is_meta]
    assert real == ["branch.weight"]


def test_real_parts_of_every_role() -> None:
    for role, name in (("diffusers", "vision"), ("environments", "audio"), ("codecs", "audio")):
        config = small_config().part(role, name)
        shapes = shapes_of(config.build)
        assert all(value.is_meta for value in shapes.values())
        made = dict(fresh_values(config.build, shapes, "x"))
        assert {n: v.shape for n, v in made.items()} == {n: v.shape for n, v in shapes.items()}
        assert not any(value.is_meta for value in made.values())
