"""Golden files: what is wrong with one is said, and their weights fill a part through a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from codi.config import ConfigError
from codi.convert.golden import Golden
from codi.convert.rules import Rule, Table

TABLE = Table(
    (Rule("bias", "a"), Rule("weight", "m")), unused={"c": "a constant"}, fresh={"scale": "one"}
)


@pytest.fixture
def golden(tmp_path: Path) -> Golden:
    (tmp_path / "x.json").write_text(json.dumps({"what": "a sum"}))
    save_file({"w.n.a": torch.ones(2).half(), "out": torch.zeros(2)}, tmp_path / "x.safetensors")
    return Golden(tmp_path / "x.json")


def test_it_is_read_when_asked_for(golden: Golden) -> None:
    assert (golden.name, golden.about["what"]) == ("x", "a sum")
    assert golden["out"].shape == (2,)
    assert golden.weights("n.")["a"].dtype == torch.float32
    assert golden.beside("y").path.name == "y.json"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):  # run in one, compared in its own
        golden.tensors["in"] = torch.ones(1, dtype=dtype)
        assert (golden["in"].dtype, golden.expected("in").dtype) == (torch.float32, dtype)
    for dtype in (torch.int16, torch.int32, torch.int64):  # networks index by the last only
        golden.tensors["in"] = torch.ones(1, dtype=dtype)
        assert (golden["in"].dtype, golden.expected("in").dtype) == (torch.int64, dtype)
    del golden.tensors["in"]
    with pytest.raises(ConfigError, match=r"x\.safetensors: no tensor 'in'"):
        golden["in"]


@pytest.mark.parametrize(
    "said",
    [
        {"what": "a step, weights in x.safetensors"},
        {"what": "a step", "weights": "x"},
        {"what": "same weights as golden x"},
    ],
)
def test_weights_may_lie_in_a_golden_that_the_text_names(
    said: dict[str, str], golden: Golden
) -> None:
    path = golden.path.with_name("y.json")
    path.write_text(json.dumps(said))
    assert Golden(path).weights("n.")["a"].tolist() == [1.0, 1.0]
    for other in ("next", "x_of_another"):
        path.write_text(json.dumps({"what": f"weights in {other}"}))
        with pytest.raises(ConfigError, match=r"y\.json: names no file with weights w\.n\.\*"):
            Golden(path).weights("n.")


def test_a_golden_is_named_by_its_letter_too_but_by_its_name_first(tmp_path: Path) -> None:
    for name in ("a_step", "a_step_wide", "b"):
        (tmp_path / f"{name}.json").write_text("{}")
    (tmp_path / "c.json").write_text(json.dumps({"what": "like b and golden a"}))
    found = [other.name for other in Golden(tmp_path / "c.json").named()]
    assert found == ["b", "a_step_wide", "a_step"]


def test_tensors_that_are_not_listed_are_those_of_the_file(golden: Golden) -> None:
    assert golden.about["tensors"] == ["out"]
    golden.path.write_text(json.dumps({"tensors": {"x": []}}))
    assert Golden(golden.path).about["tensors"] == {"x": []}


def test_a_missing_description_is_named(golden: Golden) -> None:
    golden.path.unlink()
    with pytest.raises(ConfigError, match=r"x\.json: no such file; .* says what x\.safetensors is"):
        _ = golden.about


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_a_damaged_description_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"x\.json: (no JSON|expected a JSON object)"):
        _ = Golden(tmp_path / "x.json").about


def test_damaged_tensors_are_named_and_absent_ones_are_none(golden: Golden) -> None:
    assert golden.beside("y").tensors == {}
    golden.path.with_suffix(".safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match=r"x\.safetensors: damaged or unreadable"):
        golden["out"]


def test_a_part_is_filled_through_a_table(golden: Golden) -> None:
    weights = {"a": torch.ones(1), "m": torch.full((1, 1), 2.0), "c": torch.zeros(3)}
    part = golden.filled(nn.Linear(1, 1), TABLE, weights)
    assert part(torch.ones(1, 1)).item() == 3.0
    assert not part.training


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"b": 1}, "no rule for the weight 'b'"),
        ({"a": 1}, "do not fit .*weight"),
        ({"a": 2, "m": 1}, "do not fit .*size mismatch"),
    ],
)
def test_weights_of_another_form_are_an_error(
    golden: Golden, weights: dict[str, int], message: str
) -> None:
    tensors = {name: torch.zeros(size) for name, size in weights.items()}
    with pytest.raises(ConfigError, match=rf"x\.json: .*{message}"):
        golden.filled(nn.Linear(1, 1), TABLE, tensors)


def test_only_the_first_of_many_lacking_weights_are_named(golden: Golden) -> None:
    part = nn.Sequential(*(nn.Linear(1, 1) for _ in range(9)))
    with pytest.raises(ConfigError, match=r"no weight for (\S+, ){4}\S+ and 13 more$"):
        golden.filled(part, Table(()), {})
