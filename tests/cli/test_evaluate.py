"""`codi evaluate` hands its options on as the runner takes them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from codi.cli import build_parser, main
from codi.evaluation.cells import Cell

_CELL = Cell("t", "image", "shape", "val", 1.0, 1, None, None)


def test_the_runner_takes_every_option() -> None:
    runner = pytest.importorskip("codi.evaluation.runner")
    taken = inspect.signature(runner.evaluate).parameters
    options = vars(build_parser().parse_args(["evaluate"])).keys()
    own = {"run", "quiet", "plugin"}  # of the command, not of the measuring
    assert options - own | {"progress"} <= taken.keys()


def _stand_in(
    monkeypatch: pytest.MonkeyPatch, cells: list[Cell], left_out: dict[str, str]
) -> dict[str, object]:
    """Measure nothing; return what the runner will be given."""
    runner = pytest.importorskip("codi.evaluation.runner")
    given: dict[str, object] = {}

    def evaluate(out: Path, suite: str, **settings: object) -> list[Cell]:
        given.update(settings, out=out, suite=suite)
        out.mkdir()
        report = {"settings": {"left_out": left_out}}
        (out / f"{Path(suite).stem}.json").write_text(json.dumps(report))
        return cells

    monkeypatch.setattr(runner, "evaluate", evaluate)
    return given


@pytest.mark.usefixtures("tmp_cwd")
def test_every_option_reaches_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    given = _stand_in(monkeypatch, [], {})
    words = (
        "evaluate --model m --suite weights --samples 4 --out o --tasks t --seed 3 "
        "--splits held-out --steps 5 --sampler ddim --eta 0.5 --spacing ldm --guidance image=3 "
        "--guidance-interval 100 900 --reuse 2 --batch 6 --device cpu "
        "--data d --extractors clip=codi --results r.md --quiet"
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
        "data": ["d"],
        "extractors": {"clip": "codi"},
        "results": Path("r.md"),
    }


@pytest.mark.usefixtures("tmp_cwd")
def test_where_the_report_is_and_what_it_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stand_in(monkeypatch, [_CELL, _CELL], {"a fid": "no weights"})
    assert main(["evaluate", "--suite", "mine.toml", "--out", "o", "--results", "r.md"]) == 0
    told = capsys.readouterr().err
    assert "o/mine.md, .html and .json: 2 numbers of 1 tasks" in told
    assert "r.md: the table of mine" in told
    assert "Left out: a fid: no weights." in told
