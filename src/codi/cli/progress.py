"""Progress bars and lines for people, all on stderr, so that stdout holds results alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

_FILE_WIDTH = 160


class _Rate(ProgressColumn):
    """Steps per second, or seconds per step where that reads better."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("-/s", style="cyan")
        text = f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
        return Text(text, style="cyan")


class Display:
    """One bar at a time and lines above it; `quiet` shows neither."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True, soft_wrap=True, highlight=False),
            disable=quiet,
        )

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None:  # the line that says what happened is the last one
            for bar in self.bars.task_ids:
                self.end(bar)
        if self.bars.task_ids:
            self.bars.stop()
        else:  # without a bar to leave behind, `Progress.stop` would leave an empty line
            self.bars.live.transient = True
            self.bars.live.stop()

    @property
    def live(self) -> bool:
        """Whether bars are seen to move, as on a terminal."""
        return self.bars.console.is_terminal

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if not self.quiet:
            self.bars.console.print(line, markup=False)

    def begin(self, what: str, total: int | None, done: int = 0) -> TaskID:
        """Show a bar of `total` steps (None: not known yet), `done` of them taken before."""
        return self.bars.add_task(what, total=total, completed=done, note="")

    def at(self, bar: TaskID, step: int, total: int | None = None) -> None:
        """Move a bar to `step`, and its end to `total` where that is given."""
        self.bars.update(bar, completed=step, total=total)

    def note(self, bar: TaskID, text: str) -> None:
        """Write a few words behind a bar."""
        self.bars.update(bar, note=text)

    def end(self, bar: TaskID) -> None:
        """Take a bar away."""
        self.bars.remove_task(bar)

    def count(self, what: str, total: int) -> Iterator[int]:
        """Yield 0 ... total - 1 with a bar."""
        return self.over(what, range(total), total)

    def over(self, what: str, steps: Iterable[int], total: int) -> Iterator[int]:
        """Yield `steps`, numbers below `total`, with a bar."""
        bar = self.begin(what, total)
        try:
            for step in steps:
                self.at(bar, step)
                yield step
                self.at(bar, step + 1)
        finally:
            self.end(bar)


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it.

    >>> duration(75), duration(7200), duration(1e6)
    ('1.2 min', '2.0 h', '11.6 days')
    """
    for unit, length in (("years", 365.25 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"


def print_line(line: str) -> None:
    """Print a result on stdout, in whatever letters the terminal has, unless it is closed."""
    if sys.stdout is None:
        return
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


class _Output(Console):
    """Stdout, whose reader may leave: the command line says what happens then, not the library."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - the library calls it while it handles the error


def print_table(table: Table) -> None:
    """Print a table on stdout; a file or a pipe gets all of its width."""
    console = _Output(highlight=False)
    if not console.is_terminal:
        console = _Output(highlight=False, width=_FILE_WIDTH)
    console.print(table)
