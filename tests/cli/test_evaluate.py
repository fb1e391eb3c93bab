"""`codi evaluate` hands its options on as the runner takes them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from codi.cli import build_parser, main
from codi.evaluation.report import write_report
from codi.evaluation.scoring import Cell

_CELL = Cell("t", "image", "shape", "val", 1.0, 1, None, None)


def test_the_runner_takes_every_option() -> None:
    runner = pytest.importorskip("codi.evaluation.runner")
    taken = inspect.signature(runner.evaluate).parameters
    options = vars(build_parser().parse_args(["evaluate"])).keys()
    own = {"run", "quiet", "plugin", "results"}  # of the command, not of the measuring
    assert options - own | {"progress"} <= taken.keys()


def test_every_option_reaches_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = pytest.importorskip("codi.evaluation.runner")
    given: dict[str, object] = {}
    monkeypatch.setattr(runner, "evaluate", lambda **settings: given.update(settings) or [])
    words = (
        "evaluate --model m --suite weights --samples 4 --out o --tasks t --seed 3 "
        "--splits held-out --steps 5 --sampler ddim --eta 0.5 --spacing ldm --guidance image=3 "
        "--guidance-interval 100 900 --reuse 2 --batch 6 --device cpu "
        "--data d --extractors clip=codi --quiet"
    )
    assert main(words.split()) == 0
    del given["progress"]
    assert given == {
        "model": "m",
        "suite": "weights",
        "samples": 4,
        "out": Path("o"),
        "tasks": ["t"],
        "splits": ["held-out"],
        "seed": 3,
        "steps": 5,
        "sampler": "ddim",
        "eta": 0.5,
        "spacing": "ldm",
        "guidance": {"image": 3.0},
        "guidance_interval": (100, 900),
        "reuse": 2,
        "batch": 6,
        "device": "cpu",
        "data": "d",
        "extractors": {"clip": "codi"},
    }


def test_where_the_report_is_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = pytest.importorskip("codi.evaluation.runner")
    monkeypatch.setattr(runner, "evaluate", lambda **_: [_CELL, _CELL])
    assert main(["evaluate", "--suite", "mine.toml", "--out", "o"]) == 0
    assert "o/mine.md, .html and .json: 2 numbers of 1 tasks" in capsys.readouterr().err


def test_the_table_reaches_a_page_of_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = pytest.importorskip("codi.evaluation.runner")

    def measure(*, out: Path, suite: str, **_: object) -> list[Cell]:
        out.mkdir()
        write_report(out, suite, {"splits": ["val"]}, [_CELL], ["val"])
        return [_CELL]

    monkeypatch.setattr(runner, "evaluate", measure)
    page = tmp_path / "results.md"
    words = ["--suite", "weights", "--out", str(tmp_path / "o"), "--results", str(page)]
    assert main(["evaluate", *words]) == 0
    assert "`codi evaluate --suite weights`" in page.read_text()
    assert "| t | shape | 100.0 % |  | 1 |" in page.read_text()
    assert f"{page}: the table of weights" in capsys.readouterr().err
