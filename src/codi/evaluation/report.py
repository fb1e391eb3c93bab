"""Cells to files: JSON for machines, a Markdown table for people, sheets of samples for both eyes.

It knows modalities only through their pictures, and no task by name.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from codi.build import ModelConfig
from codi.evaluation.cells import Cell
from codi.evaluation.command import typed
from codi.evaluation.page import html
from codi.evaluation.plot import Estimate, intervals
from codi.evaluation.suites import Task
from codi.media import atomic_write_text, save_image
from codi.modalities import modality

SHOWN = 8
"""Samples of a task on its sheet."""

SAVED = 3
"""Samples of a task that are written as files, what went in as well, where no sheet can play it."""

_SHEET = "png"
_PAPER, _GAP_PX, _WIDEST_PX = 255, 6, 1024


SAMPLING = ("sampler", "steps", "spacing", "eta", "guidance", "guidance_interval", "reuse")
"""Settings that say how what was measured was sampled."""


def write_report(
    out: Path,
    suite: str,
    settings: Mapping[str, Any],
    cells: Sequence[Cell],
    splits: Sequence[str],
    plot: str | None = None,
) -> None:
    """Write `<suite>.json`, `.md`, `.html` and the plot as `.svg` below `out`, each whole."""
    out.mkdir(parents=True, exist_ok=True)  # nothing made it where no item could be read
    drawn = out / f"{suite}.svg"
    if plot is None:
        drawn.unlink(missing_ok=True)  # that of an earlier report
    else:
        atomic_write_text(drawn, plot)
    found = {"settings": settings, "cells": [cell.row() for cell in cells]}
    atomic_write_text(out / f"{suite}.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    atomic_write_text(out / f"{suite}.md", markdown(suite, settings, cells, splits))
    page = html(suite, said(settings), table(cells, splits), out, drawn if plot else None)
    atomic_write_text(out / f"{suite}.html", page)


def settings_of(out: Path, suite: str) -> dict[str, Any]:
    """Return the settings of the report on a suite that `write_report` left below `out`."""
    found: dict[str, Any] = json.loads((out / f"{suite}.json").read_text(encoding="utf-8"))
    return found["settings"]


def markdown(
    suite: str, settings: Mapping[str, Any], cells: Sequence[Cell], splits: Sequence[str]
) -> str:
    """Return the cells as a Markdown table: a row for each fact, a column for each split."""
    lines = [f"# {suite}", "", *said(settings), "", *table_lines(table(cells, splits))]
    return "\n".join(lines) + "\n"


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of words, the first with the names of the columns, as a table of Markdown."""
    head, *body = rows
    return [_line(head), "|---|---|" + "---:|" * (len(head) - 2), *map(_line, body)]


def _line(row: Sequence[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in row)
    return f"| {' | '.join(escaped)} |"


def table(cells: Sequence[Cell], splits: Sequence[str]) -> list[list[str]]:
    """Return the cells as rows of words, the first with the names of the columns."""
    by_row: dict[tuple[str, str, str, str | None], dict[str, Cell]] = {}
    for cell in cells:
        row = (cell.task, cell.fact, cell.output, cell.extractor)
        by_row.setdefault(row, {})[cell.split] = cell
    with_paper = any(cell.paper is not None for cell in cells)
    rows = [["task", "what", *splits, *["paper"] * with_paper, "chance", "n"]]
    shown = ""
    for (task, *_), found in by_row.items():
        some = next(iter(found.values()))
        numbers = [_number(found[split]) if split in found else "" for split in splits]
        if with_paper:
            numbers.append("" if some.paper is None else f"{some.paper:.4g}")
        by_chance = ["" if c.chance is None else _plain(c, c.chance) for c in found.values()]
        counted = [str(cell.n) for cell in found.values()]
        start = [task if task != shown else "", _what(some)]
        rows.append([*start, *numbers, _of_columns(by_chance), _of_columns(counted)])
        shown = task
    return rows


def _of_columns(words: Sequence[str]) -> str:
    """Return what is said of each column, once where it is the same of all."""
    return words[0] if len(set(words)) == 1 else " / ".join(word or "–" for word in words)


def said(settings: Mapping[str, Any]) -> list[str]:
    """Return lines of what was measured and how, with the paper's own remarks where it has any."""
    named = ("model", *SAMPLING, "dtype", "samples", "seed")
    shown = dict(settings)
    if settings.get("weights"):
        shown["model"] = f"{settings.get('model')} (weights {settings['weights'][:12]})"
    whole = settings.get("samples_of_suite")
    if whole not in (None, settings.get("samples")):
        shown["samples"] = f"{settings.get('samples')} (the suite's own number: {whole})"
    words = [f"{name} {typed(shown[name])}" for name in named if shown.get(name) not in (None, {})]
    heading = ", ".join(words) + ". " if words else ""
    lines = [heading + "In brackets: 95 % intervals."]
    lines += [settings["note"]] if settings.get("note") else []
    for name, network in (settings.get("extractors") or {}).items():
        lines.append(
            f"{name}: {network['name']} from {network['source']}, sha256 {network['sha256'][:16]}, "
            f"{network['preprocessing']}."
        )
    lines += media_said(settings.get("media") or {})
    if settings.get("av_align_window_s"):
        window_ms = 1000.0 * settings["av_align_window_s"]
        lines.append(f"av_align: events within {window_ms:.4g} ms, a frame of the clips.")
    if settings.get("words"):
        lines.append(f"Captions are parted into words by {settings['words']}.")
    parts = settings.get("score_splits") or {}
    lines += [
        f"{what}: the mean over {count} parts of the samples." for what, count in parts.items()
    ]
    lines += left_out_said(settings.get("left_out") or {})
    return paragraphs(lines)


def media_of(config: ModelConfig, tasks: Iterable[Task]) -> dict[str, dict[str, Any]]:
    """Return the sizes and rates of the media that tasks read and make, which are the model's."""
    used = {n for t in tasks for n in (*(given.modality for given in t.inputs), *t.outputs)}
    return {name: dict(config.modality(name).media) for name in sorted(used & {*config.modalities})}


def media_said(media: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line of the sizes and rates of media, where there are any.

    >>> media_said({"text": {}, "video": {"size_px": 64, "fps": 8.0}})
    ['Media: video size_px 64, fps 8.']
    """
    told = [
        f"{name} " + ", ".join(f"{what} {typed(value)}" for what, value in own.items())
        for name, own in media.items()
        if own
    ]
    return [f"Media: {'; '.join(told)}."] if told else []


def left_out_said(left_out: Mapping[str, str]) -> list[str]:
    """Return a line for everything that could not be measured."""
    return [f"Left out: {what}: {why}." for what, why in left_out.items()]


def paragraphs(lines: Sequence[str]) -> list[str]:
    """Return lines with empty ones between them, so that Markdown keeps them apart."""
    return [part for line in lines for part in (line, "")][:-1]


def _what(cell: Cell) -> str:
    """Return what was measured, by whose eyes, and which way is better where that may surprise."""
    words = cell.fact.replace("_ms", "").replace("offset", "median offset")
    arrow = " ↓" if cell.better == "lower" else ""
    return words + (f" ({cell.extractor})" if cell.extractor else "") + arrow


def _unit(cell: Cell) -> str:
    return "ms" if cell.fact.endswith("_ms") else cell.unit


_FORMATS: Mapping[str, tuple[float, str, str]] = {
    "share": (100.0, ".1f", " %"),
    "ms": (1.0, ".0f", " ms"),
    "number": (1.0, ".4g", ""),
    "points": (100.0, "+z.1f", " points"),
}
"""Scale, digits and sign of a value, by unit."""


_AXES: Mapping[str, str] = {
    "share": "per cent",
    "ms": "ms",
    "number": "value",
    "points": "points",
}
"""What a unit is called beside an axis."""


def drawn(
    cells: Sequence[Cell], row: Callable[[Cell], str], series: Callable[[Cell], str]
) -> str | None:
    """Return an SVG of cells with their intervals and chance; None where none has an interval.

    Args:
        cells: those to draw; of several units, which one axis cannot have, those of the first's.
        row: names the row of a cell.
        series: names what it is in its row.
    """
    whole = [(c, c.value, c.ci95) for c in cells if c.value is not None and c.ci95 is not None]
    if not whole:
        return None
    unit = _unit(whole[0][0])
    scale = _FORMATS[unit][0]
    found = [
        Estimate(
            row(cell),
            series(cell),
            scale * value,
            scale * low,
            scale * high,
            None if cell.chance is None else scale * cell.chance,
        )
        for cell, value, (low, high) in whole
        if _unit(cell) == unit
    ]
    return intervals(found, _AXES[unit])


def _plain(cell: Cell, value: float) -> str:
    scale, digits, sign = _FORMATS[_unit(cell)]
    return f"{scale * value:{digits}}{sign}"


def _number(cell: Cell) -> str:
    """Return a value with its interval, and what each run has where there are several."""
    if cell.value is None:
        return "none"
    scale, digits, _ = _FORMATS[_unit(cell)]
    of_runs = ", ".join(f"{scale * value:{digits}}" for value in cell.runs)
    return _with_interval(cell, cell.value) + (f": {of_runs}" if of_runs else "")


def _with_interval(cell: Cell, value: float) -> str:
    if cell.ci95 is None:
        return _plain(cell, value)
    unit = _unit(cell)
    scale, digits, _ = _FORMATS[unit]
    narrow = digits if unit in ("number", "points") else ".0f"
    low, high = (f"{scale * end:{narrow}}" for end in cell.ci95)
    signed = unit == "points" or cell.ci95[0] < 0.0
    dash = " to " if signed else "–"  # a sign beside a dash is hard to read
    return f"{_plain(cell, value)} ({low}{dash}{high})"


# --- samples ---


def write_samples(
    folder: Path,
    config: ModelConfig,
    task: Task,
    split: str,
    prompts: Sequence[tuple[str, Sequence[Any]]],
    outputs: Mapping[str, Sequence[Any]],
) -> None:
    """Write a sheet of what went in (left) and came out (right), and sounds and clips as files.

    Sample 0 came out as `TASK-SPLIT-0.wav`, and its second prompt is `TASK-SPLIT-0.prompt2.wav`.

    Args:
        folder: where; made if missing.
        config: the model, for its media types.
        task: whose samples they are.
        split: of the items.
        prompts: modality and objects of all that went in.
        outputs: objects by modality that came out, one for each prompt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = min(SHOWN, *(len(items) for items in outputs.values()))
    rows = []
    for i in range(count):
        sides = [
            _stack([_shown(config, name, items[i]) for name, items in side])
            for side in (prompts, [*outputs.items()])
            if side
        ]
        rows.append(_beside(sides))
    for i in range(min(SAVED, count)):
        beside = {name: items[i] for name, items in (*prompts, *outputs.items())}
        stem = f"{task.name}-{split}-{i}"
        for number, (name, items) in enumerate(prompts, 1):
            if _played(name):
                media = config.media(name)
                heard, _ = media.load(items[i])  # as the model gets it: without others
                media.save(heard, folder / f"{stem}.prompt{number}.{modality(name).suffix}")
        for name in outputs:
            if _played(name):
                media = config.media(name)
                path = folder / f"{stem}.{modality(name).suffix}"
                media.save(media.with_others(outputs[name][i], beside), path)
    # Last: where the sheet is, everything is.
    save_image(folder / sheet_name(task, split), Image.fromarray(_stack(rows)))


def _played(name: str) -> bool:
    """Return whether media of a modality are files of their own: a sheet shows pictures whole."""
    entry = modality(name)
    return entry.suffix != _SHEET and not entry.is_caption


def sheet_name(task: Task, split: str) -> str:
    """Return the name of a task's sheet."""
    return f"{task.name}-{split}.{_SHEET}"


def remove_samples(folder: Path, task: Task, split: str) -> None:
    """Remove what `write_samples` has written of a task."""
    (folder / sheet_name(task, split)).unlink(missing_ok=True)
    for path in folder.glob(f"{glob.escape(f'{task.name}-{split}')}-[0-9].*"):
        path.unlink()


def _shown(config: ModelConfig, name: str, item: Any) -> np.ndarray:
    """Return a picture (H, W, 3) of an object; a long clip is cut, to keep the sheet narrow."""
    return config.media(name).picture(item)[:, :_WIDEST_PX]


def _stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return pictures (H, W, 3) of any width one below the other."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(p, ((0, _GAP_PX), (0, width - p.shape[1]), (0, 0)), constant_values=_PAPER)
        for p in pictures
    ]
    return np.concatenate(padded, axis=0)


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return pictures (H, W, 3) of any height side by side."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [
        np.pad(p, ((0, height - p.shape[0]), (0, 2 * _GAP_PX), (0, 0)), constant_values=_PAPER)
        for p in pictures
    ]
    return np.concatenate(padded, axis=1)
