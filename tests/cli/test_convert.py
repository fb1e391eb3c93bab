"""`codi convert`, `codi export` and `codi verify` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from codi.cli import main
from codi.convert import layouts as registry
from codi.convert.converting import Conversion
from codi.convert.golden import Check, Golden
from tests.convert import toy
from tests.convert.test_verifying import X, golden


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a toy single file of pictures' codec alone, with the toy layouts known."""
    monkeypatch.setattr(registry, "LAYOUTS", toy.LAYOUTS)
    model = toy.trained("codecs.image")
    state = toy.foreign_state(model, toy.PICTURES) | {"model_ema.x": torch.zeros(1)}
    return toy.write(tmp_path / "x.safetensors", state)


def test_converting_and_exporting_is_the_identity(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to, back = tmp_path / "model", tmp_path / "back.safetensors"
    assert main(["convert", str(source), "--to", str(to)]) == 0
    printed = capsys.readouterr().out
    for told in ("toy", "codecs.image", "unused: x.safetensors: 1 names such as model_ema.x: aver"):
        assert told in printed
    assert "absent: encoders.text (comes with text/model of nobody's folder)" in printed
    assert main(["export", str(to), "--as", "toy", "--to", str(back)]) == 0
    assert "left out: 1 names such as codecs.image: scale: one" in capsys.readouterr().out
    before, after = load_file(source), load_file(back)
    del before["model_ema.x"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_spoilt_weights_are_told_however_quietly(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_file(source)
    state["first.enc.0.weight"][0] = torch.inf
    spoilt = toy.write(tmp_path / "spoilt.safetensors", state)
    assert main(["convert", str(spoilt), "--to", str(tmp_path / "model"), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"codi: warning: {spoilt}: first.enc.0.weight has values that")


def test_absent_tokenizers_are_told_with_their_place(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = tmp_path / "model"
    absent = {to / "text" / "encoder-tokenizer": ("vocab.json", "merges.txt")}
    monkeypatch.setattr(Conversion, "wanting", absent)
    monkeypatch.setattr(Conversion, "fetched", {"bert-base-cased": ("vocab.txt",)})
    assert main(["convert", str(source), "--to", str(to)]) == 0
    printed = capsys.readouterr().out
    place = to / "text" / "encoder-tokenizer"
    assert f"absent: vocab.json and merges.txt (put them into {place})" in printed
    assert "absent: vocab.txt of bert-base-cased (fetched from the hub" in printed
    assert f"else put it into {to / 'bert-base-cased'})" in printed


def test_a_dry_run_writes_nothing_and_verbose_lists_names(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(source), "--to", str(tmp_path / "model"), "--dry-run"]
    assert main([*words, "--verbose", "--dtype", "bf16"]) == 0
    printed = capsys.readouterr().out
    assert "matched: codecs.image: encoder.0.weight <- first.enc.0.weight" in printed
    assert "unused: x.safetensors: model_ema.x: averages" in printed
    assert "fresh: codecs.image: scale: one" in printed
    assert "in bf16" in printed
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "model").exists()


def test_mistakes_are_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "model"
    (tmp_path / "page.ckpt").write_text("<html>404</html>")
    mistakes = (
        (["convert", "nowhere.ckpt", "--to", str(to)], "no such file or folder"),
        (["convert", str(source)], "--to"),
        (["convert", str(source), "--to", str(to), "--dtype", "fp8"], "--dtype"),
        (["convert", str(tmp_path / "page.ckpt"), "--to", str(to)], "web page"),
        (["export", str(to), "--as", "toy"], "give --as LAYOUT and --to PATH"),
        (["export", str(to), "--as", "toy", "--to", "x"], "unknown model"),
        (["verify", str(tmp_path / "nowhere")], "no such folder"),
    )
    for words, message in mistakes:
        assert main(words) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.err.count("\n") == 1
        assert not to.exists()


def test_layouts_are_listed_with_the_parts_they_take(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(source), "--to", str(tmp_path / "model"), "--quiet"]) == 0
    assert main(["export", str(tmp_path / "model"), "--list"]) == 0
    printed = capsys.readouterr().out
    assert "toy-folder" in printed
    assert "codecs.image" in printed


@pytest.mark.parametrize(("by", "code"), [(0.0, 0), (0.5, 1)])
def test_verifying_prints_errors_and_says_with_its_code(
    by: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(g: Golden) -> dict[str, Tensor]:
        return {"out": g["x"] + by}

    monkeypatch.setattr(registry, "CHECKS", (Check(lambda about: "factor" in about, run),))
    golden(tmp_path, "met", {"factor": 1}, x=X, out=X.clone())
    golden(tmp_path, "facts", {"a": 1})
    assert main(["verify", str(tmp_path), "--quiet"]) == code
    printed = capsys.readouterr().out
    assert ("fail" if code else "pass") in printed
    assert main(["verify", str(tmp_path), "--json", "--quiet"]) == code
    lines = json.loads(capsys.readouterr().out)
    assert [line["verdict"] for line in lines] == ["companion", "fail" if code else "pass"]
    (tmp_path / "broken.json").write_text("{")
    assert main(["verify", str(tmp_path), "--quiet"]) == 2
    assert "unusable: broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "x.safetensors", "--to", ""],
        ["verify", ""],
        ["verify", "goldens", "--tokenizers", ""],
    ],
)
def test_a_name_that_is_empty_is_not_taken_for_this_folder(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "the name is empty; name a file or a folder" in capsys.readouterr().err
