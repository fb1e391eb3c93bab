"""What is measured: tasks as data, and the contract of a suite that supplies and reads media.

A task says what goes in, what comes out, what is held, and which measures its outputs get. It knows
no model, no renderer and no classifier.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from codi.evaluation.cells import Cell
from codi.evaluation.records import Ledger, Reading
from codi.pipeline import SamplingSettings

Path = Literal["model", "codec", "true"]
"""What media pass on their way to being read: the whole model, its codecs alone, or nothing."""

MEDIA = ("text", "image", "video", "audio")


@dataclass(frozen=True)
class Input:
    """One prompt of a task.

    Attributes:
        modality: what is given.
        tells: the facts that a written prompt tells; None for all that can be told.
        shown_by: for a written prompt, the modality that it is a caption of.
        other: whether the prompt is of the item's partner (`partner`), so that prompts conflict.
    """

    modality: str
    tells: tuple[str, ...] | None = None
    shown_by: str | None = None
    other: bool = False

    @property
    def shows(self) -> str:
        """Return the modality whose facts it tells when `tells` is None."""
        return self.shown_by or self.modality

    @property
    def label(self) -> str:
        """Return what reports call it.

        >>> Input("image", other=True).label
        'other image'
        """
        return f"other {self.modality}" if self.other else self.modality


REFERENCES_FROM = 500_000
"""Number of the first item of a world that sets of outputs are compared with: no prompt's item."""


@dataclass(frozen=True)
class Task:
    """What is asked of a model, many times over.

    Attributes:
        inputs: prompts.
        outputs: modalities that are generated (or coded, or left as they are) and read.
        kept: streams that are given; each is among the inputs as well.
        apart: generate every output on its own: the control of a joint task.
        path: what the outputs come through; without "model" there are no inputs.
        measures: names of measures (`codi.evaluation.scoring.MEASURES`).
        weights: of the prompts, with the sum 1; equal by default.
        label: ends the name, where tasks differ in what the name does not say.
        first: number of the item that index 0 is about.
        part: of the data, where a suite measures several.
        against: names of tasks of the suite that make the same of other prompts; reports say how
            far this one is from them, item by item.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    kept: tuple[str, ...] = ()
    apart: bool = False
    path: Path = "model"
    measures: tuple[str, ...] = ("facts", "captions", "impacts", "agreement")
    weights: tuple[float, ...] = ()
    part: str = field(default="", repr=False)
    label: str = ""
    first: int = 0
    against: tuple[str, ...] = field(default=(), compare=False)

    @property
    def key(self) -> dict[str, Any]:
        """Return what its samples depend on: of all fields, those that differ from their defaults.

        A field that is added later so changes nothing for tasks without it, and what was measured
        stays valid. Measures only count what is there.

        >>> Task((Input("text"),), ("image",)).key
        {'inputs': [{'modality': 'text'}], 'outputs': ['image']}
        """
        said = ("measures", "label", "against")
        return {name: value for name, value in _differing(self).items() if name not in said}

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the weight of every prompt."""
        return self.weights or (1.0 / len(self.inputs),) * len(self.inputs)

    @property
    def name(self) -> str:
        """Return the name that users type.

        >>> Task((Input("text"), Input("audio")), ("image",)).name
        'text+audio-to-image'
        >>> Task((Input("text"), Input("image", other=True)), ("image",), weights=(0.7, 0.3)).name
        '0.7text+0.3other-image-to-image'
        """
        outputs, label = "+".join(self.outputs), f"-{self.label}" if self.label else ""
        part = f"{self.part}-" if self.part else ""
        if self.path != "model":
            return f"{part}{'reference' if self.first else self.path}-{outputs}{label}"
        held = "keep-" if self.kept else ""
        weights = [f"{weight:g}" for weight in self.weights] or [""] * len(self.inputs)
        inputs = "+".join(
            weight + given.label.replace(" ", "-")
            for weight, given in zip(weights, self.inputs, strict=True)
        )
        apart = "-apart" if self.apart else ""
        return f"{part}{held}{inputs}-to-{outputs}{label}{apart}"


def _differing(value: Any) -> Any:
    """Return a dataclass as a table of the fields that differ from their defaults."""
    if isinstance(value, tuple):
        return [_differing(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    given = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
    return {name: _differing(own) for name, (own, default) in given.items() if own != default}


def partner(index: int, count: int | None = None) -> int:
    """Return the item that conflicting prompts of an item come from: 0 and 1 are a pair, 2 and 3.

    The last of an odd number of items has nobody left, and takes the first.

    Args:
        index: of the item.
        count: how many items there are; None where there are always more.

    >>> partner(4), partner(5), partner(4, count=5)
    (5, 4, 0)
    """
    found = index ^ 1
    return found if count is None or found < count else 0


@dataclass(frozen=True)
class Terms:
    """What a suite's facts are.

    Attributes:
        values: the values of every fact; a guess is right once in as many.
        shows: the facts that a medium of each modality shows.
        match: how well two lists of impact times in seconds agree, as (F1, offsets in seconds);
            None where nothing strikes anything.
    """

    values: Mapping[str, Sequence[str]]
    shows: Mapping[str, Sequence[str]]
    match: Callable[[Sequence[float], Sequence[float]], tuple[float, Sequence[float]]] | None = None

    def told(self, task: Task) -> tuple[str, ...]:
        """Return the facts that the inputs of a task tell together; all of them without inputs."""
        if not task.inputs:
            return tuple(self.values)
        found = {
            fact
            for given in task.inputs
            for fact in (self.shows[given.shows] if given.tells is None else given.tells)
        }
        return tuple(fact for fact in self.values if fact in found)


@dataclass(frozen=True)
class Truth:
    """What is true of one item: its facts and, where something strikes, when, in seconds."""

    facts: dict[str, str]
    impacts_s: tuple[float, ...] | None = None


class Suite(ABC):
    """Items to prompt with, and eyes and ears for what comes out.

    Attributes:
        name: what users type.
        tasks: what can be measured.
        terms: its facts.
        splits: of its items, those that are measured unless others are asked for.
        available: all splits that may be asked for.
        note: a line for the report.
        samples: items of each task and split by default.
        sampling: settings that go before the model's own, and after the user's.
        left_out: what cannot be measured, and why.
        reads: the extractors and programs that its rows ask for.
    """

    name: str
    tasks: tuple[Task, ...]
    terms: Terms
    splits: tuple[str, ...] = ("trained", "held-out")
    available: tuple[str, ...] = ("trained", "held-out")
    note: str = ""
    samples: int = 100
    sampling: SamplingSettings = SamplingSettings()
    left_out: Mapping[str, str] = MappingProxyType({})
    reads: frozenset[str] = frozenset()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that changes whenever items or readings would."""

    @abstractmethod
    def count(self, split: str) -> int | None:
        """Return how many items a split has; None for as many as one likes."""

    def broken(self, split: str, index: int) -> str | None:
        """Return why an item cannot be used, such as a damaged file; None where it can.

        It then is passed over, in every task alike.
        """
        del split, index
        return None

    @abstractmethod
    def truth(self, split: str, index: int) -> Truth:
        """Return what is true of an item."""

    @abstractmethod
    def medium(self, split: str, index: int, modality: str) -> Any:
        """Return the object (a picture, a clip, a sound) of an item."""

    @abstractmethod
    def caption(self, split: str, index: int, given: Input) -> str:
        """Return a written prompt that tells what `given` asks for."""

    @abstractmethod
    def read(self, modality: str, items: Sequence[Any]) -> list[Reading]:
        """Return what objects of one modality show, whoever made them."""

    def depends(self, task: Task) -> Any:
        """Return what a task's records depend on beside itself, items and readers: plain values."""
        del task
        return None

    @property
    def described(self) -> Mapping[str, Any]:
        """Return what a result has to say beside its numbers."""
        return {}

    def needs(self, task: Task) -> tuple[Task, ...]:
        """Return tasks whose records the cells of a task are compared with."""
        del task
        return ()

    def features(self, task: Task, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return what networks say of a batch of objects (n, ...), by kind, to be kept on disk."""
        del task, modality, items
        return {}

    def compare(
        self, task: Task, split: str, count: int, ledger_of: Callable[[Task], Ledger]
    ) -> Iterable[Cell]:
        """Return cells that need all `count` records of a task, or those of other tasks."""
        del task, split, count, ledger_of
        return ()

    def plot(self, cells: Sequence[Cell]) -> str | None:
        """Return an SVG of what was measured, where a suite has one."""
        del cells
        return None


# --- the tables ---


def _told(*tells: str, shown_by: str) -> Input:
    return Input("text", tells or None, shown_by)


_GIVEN = {name: Input(name) for name in MEDIA}


def _single(written: Mapping[str, str]) -> tuple[Task, ...]:
    """Return every single input to every single output; `written` says what prompts describe."""
    return tuple(
        Task((_told(shown_by=written[made]) if given == "text" else _GIVEN[given],), (made,))
        for given in written
        for made in written
    )


def _oracle(*measured: str) -> tuple[Task, ...]:
    """Return the oracle's own cells: true media, and media through the codecs."""
    return tuple(Task((), (name,), path=path) for path in ("true", "codec") for name in measured)


def part_tasks(part: str, modalities: Sequence[str], measures: Sequence[str]) -> tuple[Task, ...]:
    """Return what can be asked of a part of real data: the oracle's cells, and all single pairs."""
    found = (*_oracle(*modalities), *_single({name: name for name in modalities}))
    return tuple(replace(task, part=part, measures=tuple(measures)) for task in found)


_EVERYTHING = _told(shown_by="video")
_PAIR = ("video", "audio")

BOUNCE = (
    *_oracle(*MEDIA),
    Task((), _PAIR, path="true", measures=("impacts",)),
    Task((), _PAIR, path="codec", measures=("impacts",)),
    *_single({"text": "video", "image": "image", "video": "video", "audio": "audio"}),
    Task((_told("shape", "colour", shown_by="image"), _GIVEN["audio"]), ("image",)),
    Task((_told("shape", "colour", shown_by="video"), _GIVEN["audio"]), ("video",)),
    Task((_told("tempo", shown_by="audio"), _GIVEN["image"]), ("audio",)),
    Task((_GIVEN["audio"], _GIVEN["image"]), ("text",)),
    Task((_GIVEN["video"], _GIVEN["audio"]), ("text",)),
    Task((_EVERYTHING,), _PAIR),
    Task((_EVERYTHING,), _PAIR, apart=True),
    Task((_GIVEN["image"],), _PAIR),
    Task((_EVERYTHING,), ("image", "text", "audio")),
    Task((_GIVEN["audio"],), ("video", "text")),
    Task((_EVERYTHING,), MEDIA),
    Task((_GIVEN["video"],), ("audio",), kept=("video",)),
    Task((_GIVEN["audio"],), ("video",), kept=("audio",)),
)
"""Tasks of the suite "bounce"."""

DIGITS = (
    *_oracle(*MEDIA),
    *_single({name: name for name in MEDIA}),
    Task((_told(shown_by="text"),), ("image", "text", "audio")),
    Task((_GIVEN["audio"],), ("image", "text")),
)
"""Tasks of the suite "digits"."""
