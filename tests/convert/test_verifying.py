from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from codi.cli import verify as command
from codi.config import ConfigError
from codi.convert.golden import Check, Golden, Words
from codi.convert.verifying import Line, compare, exit_code_of, goldens_of, verify

X = torch.tensor([1.0, -2.0, 3.0, 0.5])


def golden(folder: Path, name: str, about: dict[str, Any], **tensors: Tensor) -> Golden:
    (folder / f"{name}.json").write_text(json.dumps(about))
    if tensors:
        renamed = {key.replace("w_", "w."): value.clone() for key, value in tensors.items()}
        save_file(renamed, folder / f"{name}.safetensors")
    return Golden(folder / f"{name}.json")


def doubled(by: float = 0.0, **more: Tensor) -> Check:
    """Return a check of goldens of twos: out = factor * x, and `by` beside it."""
    return Check(
        lambda about: "factor" in about,
        lambda g: {"out": g.about["factor"] * g["x"] + by, **more},
    )


def verdicts(g: Golden, *checks: Check) -> list[tuple[str, str]]:
    return [(line.tensor, line.verdict) for line in verify(g, checks)]


def test_what_is_met_passes_and_what_is_off_fails(tmp_path: Path) -> None:
    g = golden(tmp_path, "a", {"factor": 2}, x=X, out=2 * X)
    [line] = verify(g, [doubled()])
    assert (line.verdict, line.absolute, line.relative, line.tolerance) == ("pass", 0, 0, 2e-4)
    [line] = verify(g, [doubled(0.01)])
    assert line.verdict == "fail"
    assert line.absolute == pytest.approx(0.01, rel=1e-3)
    assert line.relative == pytest.approx(0.01 / (2 * X).std(correction=0).item(), rel=1e-3)
    assert line.exit_code == 1


@pytest.mark.parametrize(
    ("more", "verdict", "code"), [("out_more", "unmade", 1), ("buffer", "not checked", 0)]
)
def test_an_output_that_no_check_makes_fails_and_other_tensors_are_told(
    more: str, verdict: str, code: int, tmp_path: Path
) -> None:
    g = golden(tmp_path, "a", {"factor": 2}, x=X, out=2 * X, w_layer=X, **{more: X})
    assert verdicts(g, doubled()) == [("out", "pass"), (more, verdict)]
    assert max(line.exit_code for line in verify(g, [doubled()])) == code


@pytest.mark.parametrize(
    "listed", [{"x": [], "out": [], "out_a": [], "out_b": []}, ["x", "out", "out_{a,b}"]]
)
def test_what_is_listed_and_absent_is_not_checked_with_the_reason(
    listed: object, tmp_path: Path
) -> None:
    g = golden(tmp_path, "a", {"factor": 2, "tensors": listed}, x=X, out=2 * X)
    lines = list(verify(g, [doubled(out_a=X)]))
    assert [(line.tensor, line.verdict) for line in lines] == [
        ("out", "pass"),
        ("out_a", "not checked"),
        ("out_b", "not checked"),
    ]
    assert "listed in a.json" in lines[1].note
    assert max(line.exit_code for line in lines) == 0


def test_a_golden_without_anything_to_compare_is_unusable(tmp_path: Path) -> None:
    without = golden(tmp_path, "a", {"factor": 2, "tensors": {"x": [], "out": []}}, x=X)
    assert verdicts(without, doubled()) == [("out", "not checked"), ("", "unusable")]
    unlisted = golden(tmp_path, "b", {"factor": 2}, x=X)
    assert verdicts(unlisted, doubled()) == [("", "unusable")]
    [line] = verify(golden(tmp_path, "c", {"factor": 2, "tensors": {"x": []}}), [doubled()])
    assert (line.verdict, line.exit_code) == ("unusable", 2)
    assert "c.safetensors: no such file, and c.json tells of tensors" in line.note


def test_goldens_without_a_check_are_named_unless_they_only_go_with_others(tmp_path: Path) -> None:
    cases = {
        "a": (golden(tmp_path, "a", {"what": "new"}, x=X), "unknown", 1),
        "b": (golden(tmp_path, "b", {}, w_layer=X), "companion", 0),
        "facts": (golden(tmp_path, "facts", {"seen": 1.0}), "companion", 0),
        "seen": (golden(tmp_path, "seen", {"max difference": 0.5}), "companion", 0),
        "network": (golden(tmp_path, "network", {"text_config": {}}), "unknown", 1),
    }
    for g, verdict, code in cases.values():
        [line] = verify(g, [doubled()])
        assert (line.verdict, line.exit_code) == (verdict, code), g.name


def test_cases_in_words_pass_or_are_not_checked_for_a_reason(tmp_path: Path) -> None:
    g = golden(tmp_path, "words", {"cases": []})
    made = {"cases": Words(), "others": Words("needs a file")}
    met, other = verify(g, [Check(lambda about: "cases" in about, lambda g: made)])
    assert (met.tensor, met.verdict, met.exit_code) == ("cases", "pass", 0)
    assert (other.tensor, other.verdict, other.exit_code) == ("others", "not checked", 0)
    assert other.note == "needs a file"
    off = {"cases": Words(differing="'a': expected 1, got 2"), "others": Words()}
    failed, passed = verify(g, [Check(lambda about: "cases" in about, lambda g: off)])
    assert (failed.verdict, failed.exit_code, passed.verdict) == ("fail", 1, "pass")
    assert failed.note == "'a': expected 1, got 2"
    [nothing] = verify(g, [Check(lambda about: "cases" in about, lambda g: {})])
    assert (nothing.verdict, nothing.exit_code) == ("unusable", 2)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"factor": 2, "lacks": "x"}, "no tensor 'x'"),
        ({"factor": "two"}, "cannot be run (TypeError"),
        ({"factor": 2, "noise": True}, "damaged or unreadable"),
    ],
)
def test_what_cannot_be_used_is_said_and_is_code_2(
    about: dict[str, Any], message: str, tmp_path: Path
) -> None:
    g = golden(tmp_path, "a", about, **({"out": X} if "lacks" in about else {"x": X, "out": X}))
    if "noise" in about:
        g.path.with_suffix(".safetensors").write_bytes(b"noise" * 10)
    [line] = verify(g, [doubled()])
    assert (line.verdict, line.exit_code) == ("unusable", 2)
    assert message in line.note
    assert "\n" not in line.note


def test_what_the_description_does_not_say_is_named(tmp_path: Path) -> None:
    check = Check(lambda about: "factor" in about, lambda g: {"out": g.about["by"] * g["x"]})
    [line] = verify(golden(tmp_path, "a", {"factor": 2}, x=X, out=X), [check])
    assert (line.verdict, line.exit_code) == ("unusable", 2)
    assert line.note == f"{tmp_path / 'a.json'}: lacks 'by', in it or among its weights; add it"


def test_a_weight_that_is_not_there_is_not_sought_in_the_description(tmp_path: Path) -> None:
    check = Check(lambda about: "factor" in about, lambda g: {"out": g.weights()["gain"] * g["x"]})
    g = golden(tmp_path, "a", {"factor": 2}, x=X, out=X, w_shift=X)
    [line] = verify(g, [check])
    assert "lacks 'gain', in it or among its weights" in line.note
    assert "does not say" not in line.note


def test_a_complaint_of_a_check_is_told_with_its_file(tmp_path: Path) -> None:
    def run(g: Golden) -> dict[str, Tensor]:
        raise ConfigError("sides = 3; there are 2 here")

    g = golden(tmp_path, "a", {"factor": 2}, x=X, out=X)
    [line] = verify(g, [Check(lambda about: "factor" in about, run)])
    assert line.note == f"{tmp_path / 'a.json'}: sides = 3; there are 2 here"


def test_half_of_a_golden_is_named_and_is_code_2(tmp_path: Path) -> None:
    golden(tmp_path, "whole", {"factor": 2}, x=X, out=2 * X)
    golden(tmp_path, "tensors", {"factor": 2}, x=X, out=2 * X).path.unlink()
    golden(tmp_path, "words", {"factor": 2, "tensors": {"x": [], "out": []}})
    golden(tmp_path, "weights", {"what": "of others", "tensors": {}, "n_weights": 3})
    lines = {g.name: list(verify(g, [doubled()])) for g in goldens_of(tmp_path)}
    assert [line.verdict for line in lines.pop("whole")] == ["pass"]
    assert {name: line.verdict for name, [line] in lines.items()} == dict.fromkeys(
        ("tensors", "words", "weights"), "unusable"
    )
    assert "tensors.json: no such file" in lines["tensors"][0].note
    assert "words.safetensors: no such file" in lines["words"][0].note
    assert "weights.safetensors: no such file" in lines["weights"][0].note
    assert exit_code_of([line for found in lines.values() for line in found]) == 2


def test_where_nothing_was_compared_nothing_is_verified() -> None:
    made = {v: Line("a", "", v) for v in ("pass", "fail", "not checked", "companion", "unknown")}
    assert exit_code_of([made["companion"], made["not checked"]]) == 2
    assert exit_code_of([made["companion"], made["pass"], made["not checked"]]) == 0
    assert exit_code_of([made["fail"], made["pass"]]) == 1
    assert exit_code_of([made["unknown"]]) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_storing_rounded_off_is_no_error(dtype: torch.dtype, tmp_path: Path) -> None:
    made = 100.0 * torch.randn(1000)
    stored = made.to(dtype)
    assert (made - stored.float()).abs().max() > 2e-4 * made.std()
    assert line_of(stored, made, tmp_path).verdict == "pass"
    assert line_of(stored, 1.02 * made, tmp_path).verdict == "fail"


def test_the_command_finds_vocabularies_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"bert": [{"text": "a", "ids": [1]}], "remove_duplicate_word": [["a a", "a"]]}
    (tmp_path / "goldens").mkdir()
    golden(tmp_path / "goldens", "words", words)
    (tmp_path / "elsewhere" / "bert-base-cased").mkdir(parents=True)
    assert _command(tmp_path / "goldens") == 0  # one of two is compared, and is met
    assert "not checked: words bert: needs BERT's vocab.txt in" in capsys.readouterr().out
    assert _command(tmp_path / "goldens", "--tokenizers", str(tmp_path / "elsewhere")) == 1
    assert "cannot load a tokenizer" in capsys.readouterr().out  # it looked there: it is empty
    with pytest.raises(ConfigError, match="nowhere: no such folder; name the folder of the voc"):
        _command(tmp_path / "goldens", "--tokenizers", str(tmp_path / "nowhere"))


def test_the_command_says_that_nothing_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden(tmp_path, "facts", {"seen": 1.0})
    assert _command(tmp_path) == 2
    assert "nothing was compared" in capsys.readouterr().out


def _command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(["--quiet", *map(str, words)]))


def line_of(wanted: Tensor, made: Tensor, tmp_path: Path) -> Line:
    return compare(golden(tmp_path, "a", {}, out=wanted), "out", made, 2e-4)


def test_comparing_is_strict_about_shapes_counts_and_what_is_no_number(tmp_path: Path) -> None:
    assert "shape (2,), expected (4,)" in line_of(X, X[:2], tmp_path).note
    ids = torch.tensor([50_000, 3, 1])
    assert line_of(ids, ids.clone(), tmp_path).verdict == "pass"
    assert line_of(ids, ids + torch.tensor([1, 0, 0]), tmp_path).verdict == "fail"
    bad = X.clone()
    bad[0] = math.nan
    assert line_of(X, bad, tmp_path).absolute == math.inf
    assert line_of(bad, X, tmp_path).verdict == "fail"
    bad[1] = -math.inf
    assert line_of(bad, bad.clone(), tmp_path).verdict == "pass"
    same = torch.full((3,), 2.0)
    assert line_of(same, same + 1e-5, tmp_path).relative == pytest.approx(5e-6, rel=0.1)
    assert line_of(torch.zeros(0), torch.zeros(0), tmp_path).verdict == "pass"


def test_a_folder_without_goldens_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        goldens_of(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no golden"):
        goldens_of(tmp_path)
    golden(tmp_path, "b", {})
    golden(tmp_path, "a", {})
    assert [g.name for g in goldens_of(tmp_path)] == ["a", "b"]
