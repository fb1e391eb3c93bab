"""The suites by name: how each is opened for a model, and where its data are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from codi.build import ModelConfig
from codi.config import ConfigError, unknown
from codi.data.benchmarks import BENCHMARKS
from codi.evaluation.benchmarks import BenchmarkSuite
from codi.evaluation.bounce import BounceSuite
from codi.evaluation.digits import DigitsSuite
from codi.evaluation.extractors.catalogue import Extractors
from codi.evaluation.protocols import load_protocol, protocol_names
from codi.evaluation.real import open_real
from codi.evaluation.suites import Suite
from codi.pipeline import Pipeline
from codi.progress import Progress


@dataclass(frozen=True)
class Opening:
    """What a suite may need to open.

    Attributes:
        config: of the model.
        roots: folders of data; none for the current one.
        out: folder of the report.
        seed: of the items.
        progress: see `codi.evaluation.runner.evaluate`, like `extractors`.
        pipeline: the model.
    """

    config: ModelConfig
    roots: tuple[Path, ...]
    out: Path
    seed: int
    progress: Progress
    extractors: Mapping[str, str]
    pipeline: Pipeline


@dataclass(frozen=True)
class Opened:
    """What a name of `SUITES` stands for: one suite, or the parts of one that share a report.

    Attributes:
        suites: with task names of their own.
        left_out: parts that are not there and extractors that are not read, and why.
    """

    suites: tuple[Suite, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def telling_unread(self, given: Iterable[str]) -> Opened:
        """Return the same, which says of every extractor in `given` that nothing here reads it."""
        read = frozenset[str]().union(*(one.reads for one in self.suites))
        listed = f"reads {', '.join(sorted(read))}" if read else "reads none"
        suite = self.suites[0].name.partition("/")[0]
        unread = {
            f"--extractors {name}": f"not read; suite {suite} {listed}"
            for name in given
            if name not in read
        }
        return replace(self, left_out={**self.left_out, **unread})

    def require_splits(self, splits: Sequence[str]) -> None:
        """Raise ConfigError for splits that no suite has."""
        available = list(dict.fromkeys(split for one in self.suites for split in one.available))
        for split in splits:
            if split not in available:
                alone = f"; suite {self.suites[0].name} has one split, that of its data"
                raise ConfigError(
                    unknown("split", split, available) + (alone if len(available) == 1 else "")
                )


def _open_bounce(opening: Opening) -> Opened:
    return Opened((BounceSuite(opening.seed),))


def _open_digits(opening: Opening) -> Opened:
    cache, seed = opening.out / "classifiers", opening.seed
    suite = DigitsSuite(opening.config, opening.roots, cache, opening.progress, seed=seed)
    return Opened((suite,))


def _open_real(opening: Opening) -> Opened:
    cache, progress = opening.out / "classifiers", opening.progress
    found, missing = open_real(opening.pipeline, opening.roots, cache, opening.seed, progress)
    return Opened(tuple(found), missing)


def _open_protocol(source: str, opening: Opening) -> Opened:
    extractors = Extractors(opening.extractors, opening.pipeline)
    protocol = load_protocol(source)
    name, root = Path(source).stem, _holding(protocol.data, opening.roots)
    suite = BenchmarkSuite(name, protocol, extractors, root, opening.seed, opening.progress)
    return Opened((suite,))


def _holding(data: str, roots: tuple[Path, ...]) -> Path | None:
    """Return the first folder that holds a published data set; the first of all where none does."""
    for root in roots if data in BENCHMARKS else ():
        try:
            BENCHMARKS[data].folder(root)
        except ConfigError:
            continue
        return root
    return roots[0] if roots else None


SUITES: dict[str, Callable[[Opening], Opened]] = {
    "bounce": _open_bounce,
    "digits": _open_digits,
    "real": _open_real,
    **{name: partial(_open_protocol, name) for name in protocol_names()},
}
"""How to open every suite."""


def opener_of(suite: str) -> Callable[[Opening], Opened]:
    """Return how a suite is opened: one of `SUITES`, or a file of the same form as a protocol."""
    if suite in SUITES:
        return SUITES[suite]
    path = Path(suite)
    if path.suffix != ".toml":
        raise ConfigError(f"{unknown('suite', suite, SUITES)}; or give a file, such as mine.toml")
    if path.stem in SUITES:
        raise ConfigError(f"{path} has the name of a suite that ships; give it one of its own")
    return partial(_open_protocol, suite)
