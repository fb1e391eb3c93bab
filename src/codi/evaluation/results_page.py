"""A page of results that commands keep: each of its blocks is a table of numbers, and their plot.

A block stands between two comments of Markdown, which name it. What is between them is a command's,
what people write about it stands outside and is never touched. The numbers themselves are in
`results/NAME.json` beside the page, so that a measurement may come in pieces: those of a task and
split that are measured now take the place of its old ones, the others stay, and table and plot are
of all of them. Numbers of other weights or settings never stand in one table.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from codi.config import ConfigError
from codi.evaluation.cells import Cell
from codi.evaluation.report import said, table, table_lines
from codi.media import atomic_write_text

_NUMBERS, _PICTURES = "results", "pictures"
"""Folders beside the page."""

_LONGEST = 16
"""Rows of a table that stays open below its plot; a longer one is folded."""

Draw = Callable[[Sequence[Cell]], str | None]
"""Cells -> an SVG of them, where there is one."""


def require(page: Path, name: str, depends: Mapping[str, str] | None = None) -> None:
    """Raise ConfigError for a page that a block could not be written into, before it is measured.

    Args:
        page: a Markdown file; see `put`.
        name: of the block.
        depends: as `bring`.

    Raises:
        ConfigError: no such folder, a page that is none, a block of that name that begins and does
            not end, or numbers of it that are damaged, or of something else.
    """
    if not page.parent.is_dir():
        raise ConfigError(f"{page}: there is no folder {page.parent}; create it first")
    if page.is_dir():
        raise ConfigError(f"{page}: is a folder; name a Markdown file in it")
    _parted(_text(page), name, page)
    before = _kept(page, name).get("depends", {})
    for what, digest in (depends or {}).items():
        if before.get(what, digest) != digest:
            raise _another(page, name, f"another {what}")


def _another(page: Path, name: str, what: str) -> ConfigError:
    return ConfigError(
        f"{_numbers(page, name)}: numbers of {what}; remove this file to begin {name} anew, or "
        "choose another page with --results"
    )


def bring(
    page: Path,
    name: str,
    command: str,
    settings: Mapping[str, Any],
    cells: Sequence[Cell],
    *,
    depends: Mapping[str, str] | None = None,
    order: Sequence[str] = (),
    draw: Draw = lambda _: None,
) -> None:
    """Bring what was measured into its block of a page, beside what is there of other tasks.

    Args:
        page: a Markdown file; see `put`.
        name: of the block.
        command: what measures it, said above the table.
        settings: of the measurement, as reports have them.
        cells: what was measured.
        depends: digests of what the numbers depend on beside the settings, by what it is called.
        order: names of tasks; others come after them, as they were measured.
        draw: draws all cells of the block.

    Raises:
        ConfigError: the block holds numbers of other weights or settings; or as `require`.
    """
    require(page, name, depends)
    # Rows say their own number of items; what is missing now may be there from before.
    said_of_all = {**settings, "samples": None, "samples_of_suite": None, "left_out": {}}
    heading = said(said_of_all)
    kept, numbers = _kept(page, name), _numbers(page, name)
    if kept and kept["heading"] != heading:
        raise _another(page, name, f"other weights or settings ({kept['heading'][0]})")
    whole = merged([_cell(row) for row in kept.get("cells", ())], cells, order)
    rows = table(whole, list(dict.fromkeys(cell.split for cell in whole)))
    lines = ",\n".join(json.dumps(cell.row()) for cell in whole)
    numbers.parent.mkdir(exist_ok=True)
    of = {**kept.get("depends", {}), **(depends or {})}
    told = f'"heading": {json.dumps(heading)}, "depends": {json.dumps(of)}'
    # The numbers first: of them a later call makes a page that was not written any more.
    atomic_write_text(numbers, f'{{{told}, "cells": [\n{lines}\n]}}\n')
    first, *more = heading
    put(page, name, [f"`{command}`: {first}", *more], rows, draw(whole))


def put(
    page: Path, name: str, heading: Sequence[str], rows: Sequence[Sequence[str]], plot: str | None
) -> None:
    """Write a table into its block of a page, and what is said above it.

    A page without the block gets it at its end, and a page that is not there is made.

    Args:
        page: a Markdown file.
        name: of the block.
        heading: lines above the table.
        rows: words, the names of columns first.
        plot: an SVG, written to `pictures/NAME.svg` beside the page and shown above the table,
            which is folded where it is long.

    Raises:
        ConfigError: as `require`.
    """
    text = _text(page)
    newline = _newline(text)
    before, after = _parted(text, name, page)
    lines = table_lines(rows)
    picture = page.parent / _PICTURES / f"{name}.svg"
    if plot is None:
        picture.unlink(missing_ok=True)
    else:
        picture.parent.mkdir(exist_ok=True)
        atomic_write_text(picture, plot)
        if len(rows) > _LONGEST:
            lines = ["<details><summary>The table</summary>", "", *lines, "", "</details>"]
        lines = [f"![{name}]({_PICTURES}/{picture.name})", "", *lines]
    block = newline.join([_opening(name), "", *heading, "", *lines, "", _closing(name)])
    atomic_write_text(page, f"{before}{block}{after}")


def merged(old: Sequence[Cell], new: Sequence[Cell], order: Sequence[str] = ()) -> list[Cell]:
    """Return cells with the new ones of every task and split in place of its old ones.

    They come task by task, in the order of `order` and then as they first appear.
    """
    measured = {(cell.task, cell.split) for cell in new}
    whole = [cell for cell in old if (cell.task, cell.split) not in measured] + list(new)
    tasks = [*order, *(cell.task for cell in (*old, *new))]
    splits = [cell.split for cell in (*old, *new)]
    return sorted(whole, key=lambda cell: (tasks.index(cell.task), splits.index(cell.split)))


def _text(page: Path) -> str:
    """Return what a page says, its ends of lines as they are."""
    if not page.exists():
        return f"# {page.stem}\n"
    try:
        return page.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{page}: is not UTF-8; save it so") from error


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _parted(text: str, name: str, page: Path) -> tuple[str, str]:
    """Return what is before a page's block, and what is after it."""
    begin, end = _opening(name), _closing(name)
    start = text.find(begin)
    if start < 0:
        newline = _newline(text)
        apart = newline if text.endswith("\n") or not text else newline * 2
        return text + (apart if text else ""), newline
    stop = text.find(end, start)
    if stop < 0:
        raise ConfigError(f"{page}: {begin} is never closed; put {end} where its table ends")
    return text[:start], text[stop + len(end) :]


def _opening(name: str) -> str:
    return f"<!-- results of {name} -->"


def _closing(name: str) -> str:
    return f"<!-- end of {name} -->"


def _numbers(page: Path, name: str) -> Path:
    return page.parent / _NUMBERS / f"{name}.json"


def _kept(page: Path, name: str) -> dict[str, Any]:
    """Return the numbers of a block, as `bring` wrote them; nothing where there are none."""
    path = _numbers(page, name)
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {
            "heading": list(kept["heading"]),
            "depends": dict(kept.get("depends", {})),
            "cells": [dict(row) for row in kept["cells"]],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged; remove it, and measure {name} again") from error


def _cell(row: Mapping[str, Any]) -> Cell:
    """Return a cell of such a file."""
    ends = row["ci95"]
    return Cell(**{**row, "ci95": None if ends is None else tuple(ends)})
