"""A page of results that commands keep: each of its blocks is a table of numbers, and their plot.

A block stands between two comments of Markdown, which name it. What is between them is a command's,
what people write about it stands outside and is never touched. The numbers themselves are in
`results/NAME.json` beside the page, so that a measurement may come in pieces: those of a task and
split that are measured now take the place of its old ones, the others stay, and table and plot are
of all of them. Numbers of other weights or settings, or read by other judges, never stand in one
table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from codi.config import ConfigError
from codi.evaluation.cells import Cell
from codi.evaluation.changes import CHANGE
from codi.evaluation.command import Asked
from codi.evaluation.report import left_out_said, media_said, paragraphs, said, table, table_lines
from codi.media import atomic_write_text

_NUMBERS, _PICTURES = "results", "pictures"
"""Folders beside the page."""

_PARTS = ("depends", "media", "networks", "left_out")
"""What the file of numbers says of all of them; that of an earlier version may lack any."""

_DIGITS = 16
"""Of a digest, as pages say them."""

_LONGEST = 16
"""Rows of a table that stays open below its plot; a longer one is folded."""

_FOLDERS = re.compile(r"(?<![\w:/.])~?/(?=\S)(?:[^\s/:;,]+/)*")
"""The folders of a path that begins at the root: those of a machine, which no page names."""

What = tuple[str, str]
"""A task and a split."""

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
    command: str | Callable[[Asked], str],
    settings: Mapping[str, Any],
    cells: Sequence[Cell],
    *,
    depends: Mapping[str, str] | None = None,
    order: Sequence[str] = (),
    draw: Draw = lambda _: None,
    asked: int | None = None,
    judges: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> None:
    """Bring what was measured into its block of a page, beside what is there of other tasks.

    Judges are networks that read facts, and may be trained anew for every folder of reports. They
    are no part of the heading, because pieces have those of their own tasks; but no table has
    numbers of two judges of one name, and none of tasks with judges that an earlier version of codi
    did not note beside such that are noted. Numbers that are measured now do not count: they take
    the place of the old ones.

    Args:
        page: a Markdown file; see `put`.
        name: of the block.
        command: what measures it, or says in Markdown what does from what was asked of the table's
            tasks and splits; stands above the table.
        settings: of the measurement, as reports have them.
        cells: what was measured.
        depends: digests of what the numbers depend on beside the settings, by what it is called.
        order: names of tasks; others come after them, as they were measured.
        draw: draws all cells of the block.
        asked: samples of every task and split that were asked for now.
        judges: names of the judges that may have read a task, by the names of all tasks of what is
            measured, of those as well that are not measured now.

    Raises:
        ConfigError: the block holds numbers of other weights, settings or judges; or as `require`.
    """
    require(page, name, depends)
    networks = settings.get("extractors") or {}
    read_by = {judge for own in judges.values() for judge in own}
    readers = {name: network for name, network in networks.items() if name in read_by}
    heading = said(
        {
            **settings,
            # What pieces differ in: rows say their own number of items, and the rest stands below.
            **{"samples": None, "samples_of_suite": None, "left_out": {}, "media": {}},
            "extractors": {n: network for n, network in networks.items() if n not in readers},
        }
    )
    kept, numbers = _kept(page, name), _numbers(page, name)
    if kept and kept["heading"] != heading:
        raise _another(page, name, f"other weights or settings ({kept['heading'][0]})")
    whole = merged([_cell(row) for row in kept.get("cells", ())], cells, order)
    pieces = dict(kept.get("pieces", {}))
    for task, split in {(cell.task, cell.split): None for cell in cells}:
        own = {n: readers[n]["sha256"][:_DIGITS] for n in judges.get(task, ()) if n in readers}
        pieces[task, split] = {"task": task, "split": split, "samples": asked, "judges": own}
    every = dict.fromkeys((cell.task, cell.split) for cell in whole)
    pieces = {what: pieces[what] for what in every if what in pieces}
    old = [what for what in every if what not in {(cell.task, cell.split) for cell in cells}]
    _refuse_other_judges(page, name, {what: pieces.get(what) for what in old}, readers, judges)
    before = kept if old else {}
    told: dict[str, Any] = {
        "heading": heading,
        "depends": {**kept.get("depends", {}), **(depends or {})},
        "media": {**before.get("media", {}), **(settings.get("media") or {})},
        "networks": {**before.get("networks", {}), **readers},
        "left_out": _left_out(before, settings.get("left_out") or {}, whole),
    }
    numbers.parent.mkdir(exist_ok=True)
    # The numbers first: of them a later call makes a page that was not written any more.
    atomic_write_text(numbers, _written(told, pieces, whole))
    begun = f"`{command}`" if isinstance(command, str) else command(_asked(whole, pieces))
    first, *more = heading
    below = [*_read_by(told["networks"]), *media_said(told["media"])]
    below += left_out_said(told["left_out"])
    rows = table(whole, list(dict.fromkeys(cell.split for cell in whole)))
    put(page, name, [f"{begun}: {first}", *more], rows, draw(whole), paragraphs(below))


def _refuse_other_judges(
    page: Path,
    name: str,
    old: Mapping[What, Mapping[str, Any] | None],
    readers: Mapping[str, Mapping[str, str]],
    judges: Mapping[str, Collection[str]],
) -> None:
    """Raise ConfigError where numbers that stay were read by other judges than those of now."""
    for (task, _), piece in old.items():
        own = [judge for judge in judges.get(task, ()) if judge in readers]
        if own and piece is None:
            raise _another(page, name, f"judges that are not noted in it ({task})")
        noted = {} if piece is None else piece["judges"]
        for judge in own:
            digest = readers[judge]["sha256"][:_DIGITS]
            if noted.get(judge, digest) != digest:
                raise _another(page, name, f"another judge ({judge} of {task})")


def _asked(cells: Sequence[Cell], pieces: Mapping[What, Mapping[str, Any]]) -> dict[What, Any]:
    """Return how many samples were asked for; where it is not noted, the one number of its rows."""
    counts: dict[What, set[int]] = {}
    for cell in cells:
        counts.setdefault((cell.task, cell.split), set()).add(cell.n)
    alike = {what: found.pop() for what, found in counts.items() if len(found) == 1}
    noted = {what: piece["samples"] for what, piece in pieces.items()}
    return {what: {**alike, **noted}.get(what) for what in counts}


def _left_out(
    before: Mapping[str, Any], now: Mapping[str, str], cells: Sequence[Cell]
) -> dict[str, str]:
    """Return what is not in the table, and why, now or from before; names of folders go.

    Options that one command gave in vain say nothing of the table.
    """
    found = dict(before.get("left_out", {}))
    found |= {what: _FOLDERS.sub("", why) for what, why in now.items() if not what.startswith("--")}
    return {what: why for what, why in found.items() if not _is_there(what, cells)}


def _is_there(what: str, cells: Sequence[Cell]) -> bool:
    """Return whether a table has what was left out of it: a part, a task or a metric of one."""
    rows = [cell for cell in cells if what in _names(cell) or cell.task.startswith(f"{what}-")]
    tasks = {cell.task for cell in rows}
    # What others are held against has no change from itself.
    itself = what.rpartition(CHANGE)[2]
    wanted = {c.split for c in cells if c.task in tasks and c.split.partition(", ")[0] != itself}
    return bool(rows) and {c.split for c in rows} >= wanted


def _names(cell: Cell) -> set[str]:
    """Return how what is left out would call a row: its task, a metric of it, or a change."""
    names = {cell.task, f"{cell.task} {cell.fact.rpartition(' ')[2]}"}
    _, change, other = cell.fact.partition(CHANGE)
    return names | {f"{cell.task} {change}{other}", change + other} if change else names


def _read_by(networks: Mapping[str, Mapping[str, str]]) -> list[str]:
    told = [
        f"{name} (sha256 {network['sha256'][:_DIGITS]}, {network['source']})"
        for name, network in networks.items()
    ]
    return [f"Read by {'; '.join(told)}."] if told else []


def _written(
    told: Mapping[str, Any], pieces: Mapping[What, Mapping[str, Any]], cells: Sequence[Cell]
) -> str:
    """Return a file of numbers, with a line for every piece and cell, so that changes are seen."""
    found = [f"{json.dumps(what)}: {json.dumps(value)}" for what, value in told.items()]
    for what, rows in (("pieces", pieces.values()), ("cells", [cell.row() for cell in cells])):
        lines = ",\n".join(json.dumps(row) for row in rows)
        found.append(f"{json.dumps(what)}: [\n{lines}\n]")
    return "{" + ", ".join(found) + "}\n"


def put(
    page: Path,
    name: str,
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    plot: str | None,
    below: Sequence[str] = (),
) -> None:
    """Write a table into its block of a page, and what is said above and below it.

    A page without the block gets it at its end, and a page that is not there is made.

    Args:
        page: a Markdown file.
        name: of the block.
        heading: lines above the table.
        rows: words, the names of columns first.
        plot: an SVG, written to `pictures/NAME.svg` beside the page and shown above the table,
            which is folded where it is long.
        below: lines below the table.

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
    lines += ["", *below] if below else []
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
            **{part: dict(kept.get(part, {})) for part in _PARTS},
            "pieces": {(one["task"], one["split"]): dict(one) for one in kept.get("pieces", ())},
            "cells": [dict(row) for row in kept["cells"]],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged; remove it, and measure {name} again") from error


def _cell(row: Mapping[str, Any]) -> Cell:
    """Return a cell of such a file."""
    ends, runs = row["ci95"], row.get("runs", ())  # which earlier versions had not
    return Cell(**{**row, "ci95": None if ends is None else tuple(ends), "runs": tuple(runs)})
