"""The command that stands above a table of results, as it is typed to measure the table again.

It names no place of a machine: folders and files that were given are placeholders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codi.folders import SHIPPED

Asked = Mapping[tuple[str, str], int | None]
"""How many samples were asked of every task and split of a table; None where nobody noted it."""

_DEFAULT_MODEL, _OWN = "tiny", "codi"

_PIECES = ", in pieces, with `--tasks`, `--splits` and `--samples`"


@dataclass(frozen=True)
class Command:
    """`codi evaluate` with all that its numbers depend on.

    What tasks, splits and samples it has is the table's matter, which may be measured in pieces.

    Attributes:
        suite: its name or file.
        model: folder of the model.
        seed: of the items.
        every: names of all tasks of the suite.
        data: how many folders of data sets were given.
        extractors: what was given for networks, by their names.
        sampling: settings that are not the suite's or the model's own, by name.
    """

    suite: str
    model: Path
    seed: int = 0
    every: Sequence[str] = ()
    data: int = 0
    extractors: Mapping[str, str] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def said(self, asked: Asked) -> str:
        """Return the command of a table as Markdown.

        Tasks are named where they are not all of the suite. Where tasks have several numbers of
        samples, or unknown ones, or not all have the same splits, it says that it took several.

        >>> whole = Command("mine", SHIPPED / "tiny", every=["text-to-image"])
        >>> whole.said({("text-to-image", "trained"): 8})
        '`codi evaluate --suite mine --splits trained --samples 8 --seed 0`'
        """
        tasks = list(dict.fromkeys(task for task, _ in asked))
        splits = list(dict.fromkeys(split for _, split in asked))
        counts = {*asked.values()}
        words = ["codi evaluate", *self._model(), "--suite", Path(self.suite).name]
        words += ["--data", *["DIR"] * self.data] if self.data else []
        words += ["--extractors", *self._networks()] if self.extractors else []
        words += ["--splits", *splits]
        even = len(counts) == 1 and None not in counts
        words += ["--samples", str(counts.pop())] if even else []
        words += ["--seed", str(self.seed)]
        for name, value in self.sampling.items():
            several = value if isinstance(value, tuple | list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(typed, several)]
        if {*tasks} != {*self.every}:
            words += ["--tasks", *tasks]
        once = even and len(asked) == len(tasks) * len(splits)
        return f"`{' '.join(words)}`" + ("" if once else _PIECES)

    def _model(self) -> list[str]:
        if self.model.parent.resolve() != SHIPPED.resolve():
            return ["--model", "DIR"]
        return [] if self.model.name == _DEFAULT_MODEL else ["--model", self.model.name]

    def _networks(self) -> list[str]:
        return [
            f"{name}={source if source == _OWN else 'PATH'}"
            for name, source in self.extractors.items()
        ]


def typed(value: Any) -> str:
    """Return a setting as it is typed.

    >>> typed({"image": 3.0, "audio": 2.5}), typed(1.0), typed("ddim")
    ('image=3 audio=2.5', '1', 'ddim')
    """
    if isinstance(value, Mapping):
        return " ".join(f"{name}={scale:g}" for name, scale in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
