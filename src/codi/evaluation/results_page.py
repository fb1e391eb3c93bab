"""A page of results that commands keep: each of its blocks is a report's table, and its plot.

A block stands between two comments of Markdown, which name it. What is between them is a command's,
what people write about it stands outside and is never touched. A report of some tasks takes the
place of these tasks' rows, and leaves those of other tasks, so that a long measurement may come in
pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from codi.config import ConfigError
from codi.evaluation.report import said, table, table_lines
from codi.evaluation.scoring import Cell
from codi.media import atomic_write_text

_PICTURES = "pictures"
"""Folder of the plots, beside the page."""

_LONGEST = 16
"""Rows of a table that stays open below its plot; a longer one is folded."""


def require(page: Path, name: str) -> None:
    """Raise ConfigError for a page that a block could not be written into, before it is measured.

    Raises:
        ConfigError: no such folder, or a block of that name that begins and does not end.
    """
    if not page.parent.is_dir():
        raise ConfigError(f"{page}: there is no folder {page.parent}; create it first")
    _parted(page, name)


def bring(report: Path, page: Path, name: str, command: str) -> None:
    """Write a report's table, and its plot where it has one, into its block of a page.

    Args:
        report: the `.json` that `write_report` made; its plot lies beside it.
        page: a Markdown file; see `put`.
        name: of the block.
        command: how the numbers are made again, said above the table.

    Raises:
        ConfigError: no such report, or a block in the page that begins and does not end.
    """
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{report}: no report to bring into {page}; measure it first") from error
    cells = [_cell(row) for row in found["cells"]]
    own = {"samples": None, "samples_of_suite": None}  # the rows say theirs
    settings = {**found["settings"], **own}
    columns = settings.get("splits") or list(dict.fromkeys(cell.split for cell in cells))
    _, inside, _ = _parted(page, name)
    rows = merged(_rows(inside), table(cells, columns))
    first, *more = said(settings)
    drawn = report.with_suffix(".svg")
    plot = drawn.read_text(encoding="utf-8") if drawn.is_file() else None
    put(page, name, [f"`{command}`: {first}", *more], rows, plot)


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
        ConfigError: a block in the page that begins and does not end.
    """
    before, _, after = _parted(page, name)
    lines = table_lines(rows)
    if plot is not None:
        kept = page.parent / _PICTURES / f"{name}.svg"
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(kept, plot)
        if len(rows) > _LONGEST:
            lines = ["<details><summary>The table</summary>", "", *lines, "", "</details>"]
        lines = [f"![{name}]({_PICTURES}/{kept.name})", "", *lines]
    block = "\n".join([_opening(name), "", *heading, "", *lines, "", _closing(name)])
    atomic_write_text(page, f"{before}{block}{after}")


def merged(old: Sequence[Sequence[str]], new: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return a table with the new rows of every task in place of its old ones.

    A task that the old table has not comes after the one that is before it in the new table.
    Columns are those of both, by their names; where a task has no such number its cell is empty.

    Args:
        old: rows of words, the names of columns first; of a task's rows only the first names it.
            It may be empty.
        new: the same, never empty.
    """
    heads = [list(rows[0]) if rows else [] for rows in (old, new)]
    # The new one's order: only what it has not is put in, before the last two, chance and count.
    columns = heads[1][:-2] + [c for c in heads[0] if c not in heads[1]] + heads[1][-2:]
    groups = _by_task(old, columns)
    place = 0
    for task, rows in _by_task(new, columns).items():
        order = list(groups)
        if task in groups:
            groups[task] = rows
            place = order.index(task) + 1
            continue
        items = list(groups.items())
        items.insert(place, (task, rows))
        groups, place = dict(items), place + 1
    return [columns, *(row for rows in groups.values() for row in rows)]


def _by_task(
    table_rows: Sequence[Sequence[str]], columns: Sequence[str]
) -> dict[str, list[list[str]]]:
    """Return the rows of every task, with all columns."""
    if not table_rows:
        return {}
    head, *rows = table_rows
    groups: dict[str, list[list[str]]] = {}
    task = ""
    for row in rows:
        task = row[0] or task
        named = dict(zip(head, row, strict=True))
        groups.setdefault(task, []).append([named.get(column, "") for column in columns])
    return groups


def _rows(lines: Sequence[str]) -> list[list[str]]:
    """Return the rows of the table among lines of Markdown, without the rule below its head."""
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    return [row for row in cells if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def _parted(page: Path, name: str) -> tuple[str, list[str], str]:
    """Return what is before a page's block, the block's lines, and what is after it."""
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# {page.stem}\n"
    begin, end = _opening(name), _closing(name)
    start = text.find(begin)
    if start < 0:
        return f"{text.rstrip()}\n\n", [], "\n"
    stop = text.find(end, start)
    if stop < 0:
        raise ConfigError(f"{page}: {begin} is never closed; put {end} where its table ends")
    return text[:start], text[start + len(begin) : stop].splitlines(), text[stop + len(end) :]


def _opening(name: str) -> str:
    return f"<!-- results of {name} -->"


def _closing(name: str) -> str:
    return f"<!-- end of {name} -->"


def _cell(row: dict[str, object]) -> Cell:
    """Return a cell of a report's file."""
    ends = row.get("ci95")
    return Cell(**{**row, "ci95": tuple(ends) if isinstance(ends, list) else None})  # type: ignore[arg-type]
