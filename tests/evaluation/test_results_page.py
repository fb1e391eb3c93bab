"""A page of results: blocks are commands', words around them are people's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from codi.config import ConfigError
from codi.evaluation.report import drawn, write_report
from codi.evaluation.results_page import bring, merged, put, require
from codi.evaluation.scoring import Cell

SPLITS = ("trained", "held-out")
HEAD = ["task", "what", "trained", "held-out", "chance", "n"]


def _cell(task: str, fact: str, value: float, split: str = "trained", n: int = 200) -> Cell:
    return Cell(task, "image", fact, split, value, n, 0.2, (value - 0.1, value))


def _report(folder: Path, *cells: Cell, plot: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    settings = {"model": "small", "samples": 200, "samples_of_suite": 100}
    settings |= {"splits": [*SPLITS]}
    write_report(folder, "bounce", settings, cells, SPLITS, plot)
    return folder / "bounce.json"


def test_a_page_gets_its_block_and_keeps_what_people_wrote(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text("# Results\n\nMind the gap.\n")
    report = _report(tmp_path / "eval", _cell("text-to-image", "shape", 0.9), plot="<svg/>")
    bring(report, page, "bounce", "codi evaluate --suite bounce")
    text = page.read_text()
    assert text.startswith("# Results\n\nMind the gap.\n\n<!-- results of bounce -->")
    assert "`codi evaluate --suite bounce`: model small. In brackets: 95 % intervals." in text
    assert "| text-to-image | shape | 90.0 % (80–90) |  | 20.0 % | 200 |" in text
    assert "![bounce](pictures/bounce.svg)" in text
    assert (page.parent / "pictures" / "bounce.svg").read_text() == "<svg/>"
    page.write_text(text + "\nIt holds.\n")
    bring(report, page, "bounce", "codi evaluate --suite bounce")
    assert page.read_text() == text + "\nIt holds.\n"  # the same again changes nothing


def test_a_report_of_some_tasks_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    first = [
        _cell("text-to-image", "shape", 0.9),
        _cell("text-to-image", "size", 0.8),
        _cell("image-to-text", "shape", 0.7),
    ]
    bring(_report(tmp_path / "a", *first), page, "bounce", "codi evaluate")
    again = [_cell("text-to-image", "shape", 0.95, n=400), _cell("text-to-audio", "size", 0.5)]
    bring(_report(tmp_path / "b", *again), page, "bounce", "codi evaluate")
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| text-to-image | shape | 95.0 % (85–95) |  | 20.0 % | 400 |",
        "| text-to-audio | size | 50.0 % (40–50) |  | 20.0 % | 200 |",
        "| image-to-text | shape | 70.0 % (60–70) |  | 20.0 % | 200 |",
    ]


def test_columns_are_those_of_both() -> None:
    old = [HEAD, ["a", "x", "1", "2", "3", "4"], ["", "y", "5", "6", "7", "8"]]
    new = [["task", "what", "trained", "chance", "n"], ["b", "x", "9", "8", "7"]]
    assert merged(old, new) == [
        ["task", "what", "trained", "held-out", "chance", "n"],
        ["b", "x", "9", "", "8", "7"],
        ["a", "x", "1", "2", "3", "4"],
        ["", "y", "5", "6", "7", "8"],
    ]
    assert merged([], new) == new


def test_two_blocks_do_not_touch_each_other(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    put(page, "growth", ["Counted."], [["n", "stages"], ["1", "2"]], None)
    put(page, "other", ["Timed."], [["n", "s"], ["1", "0.5"]], None)
    text = page.read_text()
    put(page, "growth", ["Counted anew."], [["n", "stages"], ["1", "3"]], None)
    assert page.read_text() == text.replace("Counted.", "Counted anew.").replace(
        "| 1 | 2 |", "| 1 | 3 |"
    )


def test_a_long_table_is_folded_below_its_plot(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    put(page, "short", ["Few."], [["task", "n"], ["a", "1"]], "<svg/>")
    assert "<details>" not in page.read_text()
    rows = [["task", "n"], *([f"t{i}", "1"] for i in range(20))]
    put(page, "long", ["Many."], rows, "<svg/>")
    text = page.read_text()
    assert text.index("pictures/long.svg") < text.index("<details>") < text.index("| t0 | 1 |")
    put(page, "long", ["Many."], [*rows, ["t20", "1"]], "<svg/>")
    assert page.read_text().count("<details>") == 1


def test_mistakes_are_said(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    with pytest.raises(ConfigError, match=r"nothing\.json: no report"):
        bring(tmp_path / "nothing.json", page, "bounce", "codi evaluate")
    page.write_text("<!-- results of bounce -->\n")
    with pytest.raises(ConfigError, match="never closed"):
        require(page, "bounce")
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere"):
        require(tmp_path / "nowhere" / "results.md", "bounce")
    with pytest.raises(ConfigError, match="never closed"):
        bring(_report(tmp_path, _cell("a", "x", 0.5)), page, "bounce", "codi evaluate")
    assert page.read_text() == "<!-- results of bounce -->\n"


def test_cells_of_one_unit_are_drawn() -> None:
    cells = [
        _cell("a", "shape", 0.9),
        dataclasses.replace(_cell("a", "gain", 0.1), unit="number"),
        dataclasses.replace(_cell("a", "size", 0.9), ci95=None),
        dataclasses.replace(_cell("a", "tempo", 0.9), value=None),
    ]
    picture = drawn(cells, lambda cell: cell.task, lambda cell: cell.fact)
    assert picture is not None
    assert ">shape<" in picture
    assert not any(f">{word}<" in picture for word in ("gain", "size", "tempo"))
    assert drawn(cells[2:], lambda cell: cell.task, lambda cell: cell.fact) is None
