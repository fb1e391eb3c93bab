"""A report as one page to look at and listen to: the table, and the samples beside it.

Sheets show prompts on the left and outputs on the right, sounds as spectrograms; sounds and clips
can be played, prompts before what came out. The page links to files beside it, and needs no
network. Knows no task by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse }
td, th { border-bottom: 1px solid #ccc; padding: .2rem .7rem; text-align: right }
td:nth-child(-n+2), th:nth-child(-n+2) { text-align: left }
img { image-rendering: pixelated; max-width: 100% }
video { image-rendering: pixelated; width: 16rem }
audio { vertical-align: top; width: 16rem }
figure { display: inline-block; margin: .3rem 1rem .3rem 0; vertical-align: top }
"""

_PLAYERS = {
    ".png": '<p><img loading="lazy" alt="{name}" src="{link}"></p>',
    ".svg": '<p><img alt="{name}" src="{link}"></p>',
    ".wav": '<audio controls preload="none" title="{name}" src="{link}"></audio>',
    ".mp4": '<video controls loop preload="metadata" title="{name}" src="{link}"></video>',
}
"""How a file of samples is shown, by its ending."""

_PLAYED = re.compile(r"(?P<sheet>.+)-(?P<sample>\d)(?:\.prompt(?P<prompt>\d+))?")
"""What files are called that are of a sheet, as `codi.evaluation.report.write_samples` does."""


def html(
    suite: str,
    said: Sequence[str],
    rows: Sequence[Sequence[str]],
    out: Path,
    plot: Path | None = None,
) -> str:
    """Return the page of a suite.

    Args:
        suite: its name; samples are below `samples/<suite>` in `out`, those of parts in folders of
            their own.
        said: lines of what was measured and how.
        rows: the table, names of columns first.
        out: folder that the page will be in.
        plot: a picture of the numbers in that folder, where there is one.
    """
    head, *body = rows
    lines = [f"<h1>{escape(suite)}</h1>", *(f"<p>{escape(line)}</p>" for line in said if line)]
    lines += ["<table>", _row(head, "th"), *(_row(row, "td") for row in body), "</table>"]
    lines += [] if plot is None else [_shown(plot, out)]
    files = sorted((out / "samples" / suite).rglob("*"))
    for sheet in (path for path in files if path.suffix == ".png"):
        lines += [f"<h2>{escape(sheet.stem)}</h2>", _shown(sheet, out)]
        lines += _players(sheet, files, out)
    title = escape(f"{suite}: codi evaluate")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n" + "\n".join(lines) + "\n</html>\n"
    )


def _players(sheet: Path, files: Sequence[Path], out: Path) -> list[str]:
    """Return the files of a sheet, sample by sample, each sample's prompts first."""
    found = []
    for path in files:
        match = _PLAYED.fullmatch(path.stem)
        beside = path != sheet and path.parent == sheet.parent
        if beside and match is not None and match["sheet"] == sheet.stem:
            sample, prompt = int(match["sample"]), match["prompt"]
            said = f"{sample + 1}: {'output' if prompt is None else 'prompt'}"
            figure = f"<figure>{_shown(path, out)}<figcaption>{said}</figcaption></figure>"
            found.append(((sample, prompt is None, prompt or "", path.suffix), figure))
    return [figure for _, figure in sorted(found)]


def _row(cells: Sequence[str], kind: str) -> str:
    return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"


def _shown(path: Path, out: Path) -> str:
    link = quote(path.relative_to(out).as_posix())
    player = _PLAYERS.get(path.suffix, '<a href="{link}">{name}</a>')
    return player.format(name=escape(path.name), link=link)
