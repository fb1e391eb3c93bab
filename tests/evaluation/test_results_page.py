"""A page of results: blocks are commands', words around them are people's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from codi.config import ConfigError
from codi.evaluation.cells import Cell
from codi.evaluation.command import Command
from codi.evaluation.report import drawn
from codi.evaluation.results_page import bring, merged, put, require
from codi.folders import SHIPPED

COMMAND = "codi evaluate --suite bounce"


def _cell(task: str, fact: str, value: float, split: str = "trained", n: int = 200) -> Cell:
    return Cell(task, "image", fact, split, value, n, 0.2, (value - 0.1, value))


def _bring(page: Path, *cells: Cell, **settings: Any) -> None:
    said = {"model": "small", "weights": "ab12", "samples": 200, "samples_of_suite": 100}
    order = ("text-to-image", "text-to-audio")

    def draw(whole: Sequence[Cell]) -> str | None:
        return drawn(whole, lambda cell: cell.task, lambda cell: cell.fact)

    bring(page, "bounce", COMMAND, said | settings, cells, order=order, draw=draw)


def _rows(page: Path) -> list[str]:
    return [line for line in page.read_text().splitlines() if line.startswith("| ")]


def test_a_page_gets_its_block_and_keeps_what_people_wrote(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nMind the gap.\n")
    _bring(page, _cell("text-to-image", "shape", 0.9))
    text = page.read_text()
    assert text.startswith("# Results\n\nMind the gap.\n\n<!-- results of bounce -->")
    assert f"`{COMMAND}`: model small (weights ab12). In brackets: 95 % intervals." in text
    assert "| text-to-image | shape | 90.0 % (80–90) | 20.0 % | 200 |" in text
    assert "![bounce](pictures/bounce.svg)" in text
    assert ">shape<" in (tmp_path / "pictures" / "bounce.svg").read_text()
    page.write_text(text + "\nIt holds.  \n")
    _bring(page, _cell("text-to-image", "shape", 0.9))
    assert page.read_text() == text + "\nIt holds.  \n"  # the same again changes nothing
    (cell,) = json.loads((tmp_path / "results" / "bounce.json").read_text())["cells"]
    assert (cell["fact"], cell["value"]) == ("shape", 0.9)


def test_a_measurement_may_come_in_pieces(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    _bring(page, _cell("strange", "x", 0.7), _cell("text-to-image", "shape", 0.9))
    _bring(page, _cell("text-to-image", "shape", 0.95, "held-out", n=48))
    _bring(page, _cell("text-to-audio", "size", 0.5), _cell("strange", "y", 0.6))
    assert _rows(page) == [
        "| task | what | trained | held-out | chance | n |",
        "| text-to-image | shape | 90.0 % (80–90) | 95.0 % (85–95) | 20.0 % | 200 / 48 |",
        "| text-to-audio | size | 50.0 % (40–50) |  | 20.0 % | 200 |",
        "| strange | y | 60.0 % (50–60) |  | 20.0 % | 200 |",
    ]
    picture = (tmp_path / "pictures" / "bounce.svg").read_text()
    assert all(f">{task}<" in picture for task in ("text-to-image", "text-to-audio", "strange"))


def test_numbers_of_other_weights_or_settings_never_stand_beside_each_other(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    _bring(page, _cell("text-to-image", "shape", 0.9))
    before = page.read_text()
    for other in ({"weights": "cd34"}, {"steps": 2}, {"seed": 7}):
        with pytest.raises(
            ConfigError, match=r"bounce\.json: numbers of other .*begin bounce anew"
        ):
            _bring(page, _cell("text-to-audio", "size", 0.5), **other)
    assert page.read_text() == before
    _bring(page, _cell("text-to-audio", "size", 0.5), samples=7, left_out={"a": "no data"})
    (tmp_path / "results" / "bounce.json").unlink()
    _bring(page, _cell("text-to-audio", "size", 0.5), weights="cd34")
    assert len(_rows(page)) == 2


def test_numbers_of_other_items_or_recipes_never_stand_beside_each_other(tmp_path: Path) -> None:
    page = tmp_path / "results.md"

    def bring_of(task: str, **depends: str) -> None:
        cell = _cell(task, "shape", 0.9)
        bring(page, "real", COMMAND, {"model": "small"}, [cell], depends=depends)

    bring_of("text-to-image", digits="ab")
    bring_of("text-to-audio", esc="cd")
    with pytest.raises(ConfigError, match=r"real\.json: numbers of another digits; .*begin real"):
        bring_of("text-to-audio", digits="ef", esc="cd")
    bring_of("image-to-image", esc="cd")
    assert len(_rows(page)) == 4


def test_the_command_is_of_the_whole_table(tmp_path: Path) -> None:
    page = tmp_path / "results.md"

    def bring_of(task: str, asked: int, split: str = "trained", n: int = 7) -> str:
        cells = [_cell(task, "shape", 0.9, split, n)]
        said = Command("bounce", SHIPPED / "tiny", every=["a", "b"]).said
        bring(page, "bounce", said, {"model": "small"}, cells, asked=asked)
        return next(line for line in page.read_text().splitlines() if line.startswith("`codi"))

    begun = "`codi evaluate --suite bounce --splits trained"
    assert bring_of("a", 8).startswith(f"{begun} --samples 8 --seed 0 --tasks a`: model small.")
    assert bring_of("b", 8).startswith(f"{begun} --samples 8 --seed 0`: model small.")
    pieces = "`, in pieces, with `--tasks`, `--splits` and `--samples`: model small."
    held = f"{begun} held-out"
    assert bring_of("b", 8, "held-out").startswith(f"{held} --samples 8 --seed 0{pieces}")
    assert bring_of("a", 8, "held-out").startswith(f"{held} --samples 8 --seed 0`: model small.")
    assert bring_of("b", 9).startswith(f"{held} --seed 0{pieces}")
    numbers = tmp_path / "results" / "bounce.json"
    assert [p["samples"] for p in json.loads(numbers.read_text())["pieces"]] == [8, 8, 9, 8]


def test_a_page_of_an_earlier_version_takes_new_pieces(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(
        "<!-- results of bounce -->\n\n`codi evaluate --suite bounce`: model small.\n\n"
        "<!-- end of bounce -->\n"
    )
    (tmp_path / "results").mkdir()
    heading = ["model small. In brackets: 95 % intervals."]
    cells = [_cell("a", fact, 0.9, n=200).row() for fact in ("shape", "size")]
    numbers = tmp_path / "results" / "bounce.json"
    numbers.write_text(json.dumps({"heading": heading, "cells": cells}))
    said = Command("bounce", SHIPPED / "tiny", every=["a", "b"]).said
    settings = {"model": "small", "media": {"image": {"size_px": 64}}}
    bring(page, "bounce", said, settings, [_cell("b", "shape", 0.9)], asked=200)
    text = page.read_text()
    assert "`codi evaluate --suite bounce --splits trained --samples 200 --seed 0`: mod" in text
    assert "--suite bounce`" not in text
    assert text.index("| b | shape |") < text.index("\n\nMedia: image size_px 64.\n\n<!-- end")
    assert json.loads(numbers.read_text())["media"] == settings["media"]
    cells[0]["n"] = 150
    numbers.write_text(json.dumps({"heading": heading, "cells": cells}))
    bring(page, "bounce", said, settings, [_cell("b", "shape", 0.9)], asked=200)
    assert "`, in pieces, with " in page.read_text()  # nobody noted how many were asked for


def _judged(page: Path, task: str, digest: str) -> None:
    network = {"name": "C", "source": "items", "sha256": digest * 64, "preprocessing": "x"}
    own = {"name": "I", "source": "weights", "sha256": "0" * 64, "preprocessing": "y"}
    settings = {"extractors": {"inception": own, "glyph": {**network, "trained_on": "z"}}}
    judges = {"a": ["glyph"], "b": ["glyph"]}
    bring(page, "digits", "codi", settings, [_cell(task, "digit", 0.9)], judges=judges)


def test_judges_are_named_and_those_of_one_table_are_the_same(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    _judged(page, "a", "1")
    _judged(page, "b", "1")
    text = page.read_text()
    assert f"\n\nRead by glyph (sha256 {'1' * 16}, items).\n\n<!-- end" in text
    assert "inception: I from weights" in text
    kept = json.loads((tmp_path / "results" / "digits.json").read_text())
    assert kept["networks"]["glyph"]["sha256"] == "1" * 64
    assert [piece["judges"] for piece in kept["pieces"]] == [{"glyph": "1" * 16}] * 2
    with pytest.raises(ConfigError, match=r"numbers of another judge \(glyph of a\); .*begin dig"):
        _judged(page, "b", "2")
    assert page.read_text() == text


def test_a_judge_may_change_where_all_its_numbers_do(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    _judged(page, "a", "1")
    _judged(page, "a", "2")
    assert f"Read by glyph (sha256 {'2' * 16}, items)." in page.read_text()


def test_numbers_of_judges_that_nobody_noted_are_replaced_or_refused(tmp_path: Path) -> None:
    page, numbers = tmp_path / "results.md", tmp_path / "results" / "digits.json"
    _judged(page, "a", "1")
    earlier = json.loads(numbers.read_text())
    del earlier["pieces"], earlier["networks"]
    numbers.write_text(json.dumps(earlier))
    with pytest.raises(ConfigError, match=r"numbers of judges that are not noted in it \(a\)"):
        _judged(page, "b", "1")
    _judged(page, "a", "1")
    _judged(page, "b", "1")


def test_a_change_is_left_out_until_all_but_what_it_is_from_have_it(tmp_path: Path) -> None:
    page, what = tmp_path / "results.md", "change from one"
    change = f"shape {what}"
    _bring(page, _cell("a", "shape", 0.9, "one"), _cell("a", "shape", 0.9, "two"))
    _bring(page, _cell("a", change, 0.9, "two"), left_out={what: "not here"})
    assert "Left out" not in page.read_text()
    _bring(page, _cell("a", "shape", 0.9, "three"), left_out={what: "not here"})
    assert f"Left out: {what}: not here." in page.read_text()
    _bring(page, _cell("b", "shape", 0.9, "one"), left_out={f"a {what}": "not here either"})
    assert f"Left out: a {what}: not here either." in page.read_text()
    _bring(page, _cell("a", change, 0.9, "three"))
    assert "Left out" not in page.read_text()


def test_what_is_left_out_is_said_until_it_is_there(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    damaged = {"items with damaged media": "2, such as /home/me/my/a.jpg: cut off"}
    lacking = {"text-to-image fid": "give a file", "strange": "the model has no x"}
    in_vain = {"--extractors clap": "not read"}  # says nothing of the table
    _bring(page, _cell("text-to-image", "shape", 0.9), left_out={**damaged, **lacking, **in_vain})
    text = page.read_text()
    assert "clap" not in text
    assert "Left out: items with damaged media: 2, such as a.jpg: cut off." in text
    assert "Left out: text-to-image fid: give a file.\n\nLeft out: strange: the model" in text
    _bring(page, _cell("strange", "x", 0.7))
    assert "Left out: strange" not in page.read_text()
    assert "Left out: items with damaged media" in page.read_text()  # of what is still there
    _bring(page, _cell("text-to-image", "fid", 0.9))
    assert "Left out: text-to-image" not in page.read_text()
    _bring(page, _cell("text-to-image", "fid", 0.9), _cell("strange", "x", 0.7))
    assert "Left out" not in page.read_text()


def test_tasks_come_in_order() -> None:
    old = [_cell("b", "x", 0.1), _cell("c", "x", 0.2, "held-out"), _cell("b", "x", 0.3, "held-out")]
    new = [_cell("a", "x", 0.4), _cell("c", "x", 0.5)]
    found = [(c.task, c.split, c.value) for c in merged(old, new, ["c", "b"])]
    assert found == [
        ("c", "trained", 0.5),
        ("c", "held-out", 0.2),
        ("b", "trained", 0.1),
        ("b", "held-out", 0.3),
        ("a", "trained", 0.4),
    ]


def test_two_blocks_do_not_touch_each_other(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_bytes(b"# Mine\r\n\r\nwords")
    put(page, "growth", ["Counted."], [["n", "stages"], ["1", "2"]], "<svg/>")
    put(page, "other", ["Timed."], [["n", "s"], ["1", "0.5"]], None)
    before = page.read_bytes()
    assert b"\n" not in before.replace(b"\r\n", b"")  # the page's own ends of lines
    put(page, "growth", ["Counted anew."], [["n", "stages"], ["1", "a|b"]], "<svg/>")
    changed = before.replace(b"Counted.", b"Counted anew.").replace(b"| 1 | 2 |", rb"| 1 | a\|b |")
    assert page.read_bytes() == changed
    put(page, "growth", ["Counted."], [["n", "stages"], ["1", "2"]], None)
    assert not (tmp_path / "pictures" / "growth.svg").exists()


def test_a_long_table_is_folded_below_its_plot(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    put(page, "short", ["Few."], [["task", "n"], ["a", "1"]], "<svg/>")
    assert "<details>" not in page.read_text()
    rows = [["task", "n"], *([f"t{i}", "1"] for i in range(20))]
    put(page, "long", ["Many."], rows, "<svg/>")
    text = page.read_text()
    assert text.index("pictures/long.svg") < text.index("<details>") < text.index("| t0 | 1 |")


def test_mistakes_are_said_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    require(page, "bounce")
    page.write_text("<!-- results of bounce -->\n")
    with pytest.raises(ConfigError, match="never closed"):
        require(page, "bounce")
    page.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        require(page, "bounce")
    with pytest.raises(ConfigError, match="is a folder"):
        require(tmp_path, "bounce")
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere"):
        require(tmp_path / "nowhere" / "results.md", "bounce")
    page.unlink()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bounce.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"bounce\.json: is damaged"):
        require(page, "bounce")


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
