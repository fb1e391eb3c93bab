"""The judges of one part of the real data: what values its facts have, and a network for each fact.

A panel either is taught here, by the part's training shards, or ships (`codi.evaluation.shipped`).
It knows no task and no model that is judged.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from codi.config import ConfigError
from codi.data.shards import Item, ItemError
from codi.data.source import ShardSource
from codi.evaluation.classifiers import Classifier, fit_classifier, prepared
from codi.evaluation.judges import JUDGES, SEED
from codi.evaluation.parts import Fact, Part, looked_up
from codi.progress import Progress
from codi.weights import load_part, save_part

_OWN_CODE = (
    "real.py",
    "digits.py",
    "parts.py",
    "judges.py",
    "classifiers.py",
    "panels.py",
    "shipped.py",
)


@cache
def code_digest() -> str:
    """Return a digest of the judges' own source: a changed judge is a changed measure."""
    own = [Path(__file__).with_name(name) for name in _OWN_CODE]
    return hashlib.sha256(b"".join(path.read_bytes() for path in own)).hexdigest()[:12]


def stated(part: Part, fact: Fact, item: Item, path: str) -> Any:
    """Return what an item's record has at a path.

    Raises:
        ItemError: nothing.
    """
    value = looked_up(item.record(), path)
    if value is None:
        raise ItemError(
            f"{item.file}: item {item.key!r}: its record has no {path!r}, the {fact.name} of "
            f"{part.name}; mend or leave out the item"
        )
    return value


class Panel(ABC):
    """The judges of a part.

    Attributes:
        part: what they judge.
        facts: its facts, by name.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self.facts: dict[str, Fact] = {fact.name: fact for fact in part.facts}

    @property
    @abstractmethod
    def words(self) -> Mapping[str, Mapping[str, str]]:
        """Return, for every fact, the words of every value of records, in the order of classes."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that changes whenever the judges would."""

    @abstractmethod
    def judge(self, fact: str, kind: str) -> Classifier:
        """Return a fact's judge of a kind, ready to read."""

    @property
    @abstractmethod
    def described(self) -> Mapping[str, Mapping[str, str]]:
        """Return what a result has to name of every judge that there is by now, by its name."""

    @property
    def kinds(self) -> Iterator[tuple[str, str]]:
        """Yield the names of facts and the kinds of judges that each of them has."""
        for name, fact in self.facts.items():
            for kind in sorted({*fact.judges.values()}):
                yield name, kind


class TaughtPanel(Panel):
    """Judges that learn from training shards when they are needed, and are kept in a folder.

    Args:
        part: what they judge.
        source: opens the training shards.
        cache: folder of trained judges.
        left_out: gets how many items could not be used, and why the first could not.
        progress: shows their training.
        steps: of it; those of each kind of judge by default.
    """

    def __init__(
        self,
        part: Part,
        source: Callable[[], ShardSource],
        cache: Path,
        left_out: dict[str, str],
        progress: Progress,
        steps: int | None = None,
    ) -> None:
        super().__init__(part)
        self._source, self.cache, self.left_out = source, cache, left_out
        self.progress, self.steps = progress, steps
        self._judges: dict[tuple[str, str], Classifier] = {}
        self._lessons: tuple[str, Tensor, list[int]] | None = None
        self._unread: dict[str, str] = {}

    @property
    def source(self) -> ShardSource:
        """Return the training shards.

        Raises:
            ConfigError: there are none.
        """
        return self._source()

    @property
    def fingerprint(self) -> str:
        """Return a digest of the training shards."""
        return self.source.fingerprint

    @cached_property
    def words(self) -> Mapping[str, Mapping[str, str]]:
        """Return the words of the values, those that only training records have included."""
        return {name: dict(fact.values) or self._heard(fact) for name, fact in self.facts.items()}

    def _heard(self, fact: Fact) -> dict[str, str]:
        """Return the words of every value that training records have."""
        found = {}
        for item in self.source.items:
            try:
                value, words = (stated(self.part, fact, item, p) for p in (fact.at, fact.said_at))
            except ItemError as error:
                self._pass_over(item, error)
            else:
                found[str(value)] = str(words).lower()
        self._refuse_nothing(len(found))
        return dict(sorted(found.items()))

    # --- judges ---

    def judge(self, fact: str, kind: str) -> Classifier:
        """Return a fact's judge of a kind, trained where none is kept."""
        if (fact, kind) not in self._judges:
            self._judges[fact, kind] = self._kept(fact, kind) or self._trained(fact, kind)
        return self._judges[fact, kind]

    def _trained(self, fact: str, kind: str) -> Classifier:
        classifier = JUDGES[kind].fresh(len(self.words[fact]))
        inputs, labels = self._lesson(fact, kind, classifier)
        fit_classifier(
            classifier,
            inputs,
            labels,
            steps=JUDGES[kind].steps if self.steps is None else self.steps,
            seed=SEED,
            what=f"training the judge of {self.part.name}: {fact} ({kind})",
            progress=self.progress,
        )
        save_part(classifier, *self._place(fact, kind))
        return classifier.eval()

    def _kept(self, fact: str, kind: str) -> Classifier | None:
        """Return a judge that was trained before; None where there is none, or of another shape."""
        classifier = JUDGES[kind].fresh(len(self.words[fact]))
        try:
            load_part(classifier, *self._place(fact, kind))
        except ConfigError:  # mended by training
            return None
        return classifier.eval()

    def _place(self, fact: str, kind: str) -> tuple[Path, str]:
        """Return the folder that keeps a judge, and what it is called in it."""
        judge = f"{self.part.name}-{fact}-{kind}"
        depends = f"{self.fingerprint} {code_digest()}"
        digest = hashlib.sha256(depends.encode()).hexdigest()[:12]
        return self.cache / f"{judge}-{digest}", f"classifiers.{judge}"

    @property
    def described(self) -> Mapping[str, Mapping[str, str]]:
        """Return the judges that there are by now: they are trained as tasks need them."""
        found = {}
        for fact, kind in self.kinds:
            judge = self._judges.get((fact, kind)) or self._kept(fact, kind)
            if judge is not None:
                self._judges[fact, kind] = judge
                found[f"{self.part.name}-{fact}-{kind}"] = JUDGES[kind].identity(
                    judge, f"training here on {counted(self.source)}", self.fingerprint
                )
        return found

    # --- lessons ---

    def _lesson(self, fact: str, kind: str, classifier: Classifier) -> tuple[Tensor, list[int]]:
        """Return what a judge learns from (n, ...), and the number of its fact's value."""
        if self._lessons is None or self._lessons[0] != kind:  # facts of one kind share it
            self._lessons = None
            places: list[int] = []
            inputs = prepared(classifier, self._learned_from(kind, places))
            self._lessons = (kind, inputs, places)
        _, inputs, places = self._lessons
        numbers = {value: number for number, value in enumerate(self.words[fact])}
        one = self.facts[fact]
        said_of: list[int | None] = []
        for item in self.source.items:
            try:
                said_of.append(numbers.get(str(stated(self.part, one, item, one.at))))
            except ItemError as error:
                self._pass_over(item, error)
                said_of.append(None)
        labels = [(row, said_of[place]) for row, place in enumerate(places)]
        known = [(row, label) for row, label in labels if label is not None]
        self._refuse_nothing(len(known))
        return inputs[[row for row, _ in known]], [label for _, label in known]

    def _learned_from(self, kind: str, places: list[int]) -> Iterator[Tensor]:
        """Yield what training items teach; `places` gets the item of every row."""
        source = self.source
        for index in self.progress(f"reading {self.part.name} for its judges", len(source)):
            item = source.items[index]
            try:
                seen = JUDGES[kind].learns(source.read(index)[0])
            except ItemError as error:
                self._pass_over(item, error)
            except KeyError as error:
                self._pass_over(item, f"{item.file}: item {item.key!r} has no {error}")
            else:
                places += [index] * len(seen)
                yield seen
        self._refuse_nothing(len(places))

    def _pass_over(self, item: Item, why: object) -> None:
        """Leave out a training item."""
        self._unread.setdefault(item.key, str(why))
        what = f"training items of {self.part.name} that cannot be used"
        first = next(iter(self._unread.values()))
        self.left_out[what] = f"{len(self._unread)}, such as {first.rstrip('.')}"

    def _refuse_nothing(self, count: int) -> None:
        """Raise ItemError when all training items were passed over: the first one says why."""
        if not count and self._unread:
            raise ItemError(next(iter(self._unread.values())))


def counted(source: ShardSource) -> str:
    """Return how many items shards hold, and their names, in words."""
    return f"{len(source)} items of {', '.join(file.name for file in source.files)}"
