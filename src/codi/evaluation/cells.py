"""What a measurement gives: numbers with their chance and interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from codi.evaluation.statistics import Interval

Unit = Literal["share", "number", "points"]


@dataclass(frozen=True)
class Each:
    """What a number is the mean of.

    Attributes:
        values: of the items, by their numbers.
        least, most: between which a value lies.
        change: whether values are differences of two measurements; such have intervals of their
            own (`codi.evaluation.changes`), and are compared with nothing.
    """

    values: Mapping[int, float]
    least: float = 0.0
    most: float = 1.0
    change: bool = False


@dataclass(frozen=True)
class Cell:
    """One measured number.

    Attributes:
        task, split: where it was measured.
        output: the modality that was read; two joined by "+" where they are compared.
        fact: what was measured; unique within a task and split.
        value: a share from 0 to 1, an F1, or milliseconds where `fact` ends in "_ms"; None when
            there was nothing to measure.
        n: number of samples (of pairs, for milliseconds).
        chance: what guessing gives; None where that has no meaning.
        ci95: interval that holds the true value 19 times in 20; None where so few
            samples have none.
        unit: what `value` is, where it is no milliseconds: a share, a difference of two shares, or
            a number that has no unit.
        extractor: whose features were compared.
        better: which way is better, where that is not the higher one.
        paper: the figure of the paper.
        source: the prompt whose facts are counted, such as "text" or "other image"; None where
            those of all prompts are.
        runs: the values of several trainings of which this is the mean; none for one.
        each: what `value` is the mean of; None where it is no mean over items. Files have it not.
    """

    task: str
    output: str
    fact: str
    split: str
    value: float | None
    n: int
    chance: float | None
    ci95: Interval | None
    unit: Unit = "share"
    extractor: str | None = None
    better: str = "higher"
    paper: float | None = None
    source: str | None = None
    runs: tuple[float, ...] = ()
    each: Each | None = field(default=None, compare=False, repr=False)

    def row(self) -> dict[str, Any]:
        """Return it as files have it."""
        found = asdict(replace(self, each=None))
        del found["each"]
        if not self.runs:
            del found["runs"]
        return found
