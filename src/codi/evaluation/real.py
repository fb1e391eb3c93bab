"""The suite "real": recordings, drawings, photographs and animations of shards, part by part.

Facts are read by judges trained on the part's own training shards, which may lie elsewhere than
the items; where there are none, by the judges that ship. Parts without judges are measured by
retrieval with the model's prompt encoders. What belongs together by class alone is judged by class
alone: nothing here asks when something happens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from codi.build import ModelConfig
from codi.config import ConfigError
from codi.data.shards import ItemError
from codi.data.source import Record as ItemRecord
from codi.data.source import Roots, ShardsConfig, ShardSource, beside_set, find_files, places
from codi.evaluation.cells import Cell
from codi.evaluation.extractors.base import Extractor
from codi.evaluation.extractors.own import OwnExtractor
from codi.evaluation.judges import JUDGES
from codi.evaluation.metrics.embeddings import chance_within, found_within
from codi.evaluation.panels import Panel, TaughtPanel, code_digest, stated
from codi.evaluation.parts import PARTS, Fact, Part, said
from codi.evaluation.records import Ledger, Reading
from codi.evaluation.shipped import shipped_panel
from codi.evaluation.statistics import wilson_interval
from codi.evaluation.suites import Input, Suite, Task, Terms, Truth, part_tasks
from codi.modalities import modality as modality_entry
from codi.pipeline import Pipeline
from codi.progress import Progress, quiet
from codi.weights import missing_parts

NAME = "real"

RANKS = (1, 5, 10)
"""Among how many of the nearest the right one is looked for."""

TRAINED = "trained"
"""What the shards are called that judges learn from."""

_JUDGED = ("test", "val")
"""Splits by which a model is judged: the first that is there, unless others are asked for."""

_TAUGHT = "train"
"""The split whose shards are the `TRAINED` ones."""


class PartSuite(Suite):
    """The items of one part, and judges of their facts.

    Args:
        part: what they are.
        config: of the model, whose sizes and rates media get.
        root: folder of the shards, or several.
        shards: of every split; those of `TRAINED` teach the judges, and may lie where CODI_DATA
            says instead. Without them the judges are those that ship.
        cache: folder of trained judges.
        progress: shows their training.
        steps: of it; those of each kind of judge by default.
        seed: of the order of items: shards may be sorted by class, and few items shall be of all.
    """

    def __init__(
        self,
        part: Part,
        config: ModelConfig,
        root: Roots,
        shards: Mapping[str, ShardsConfig],
        cache: Path,
        progress: Progress = quiet,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        self.part, self.config, self.root, self.shards = part, config, root, dict(shards)
        self.cache, self.progress, self.steps, self.seed = cache, progress, steps, seed
        self._open: dict[str, ShardSource] = {}
        self._order: dict[str, list[int]] = {}
        self._items: dict[tuple[str, int], tuple[dict[str, np.ndarray], ItemRecord]] = {}
        self._faults: dict[tuple[str, int], str | None] = {}
        self.left_out: dict[str, str] = {}

    # --- facts ---

    @cached_property
    def panel(self) -> Panel | None:
        """Return the judges: taught by the training shards, or those that ship; None without facts.

        Raises:
            ConfigError: there are no training shards, and no judges of the part that ship, or they
                do not suit the model's media.
        """
        if not self.part.facts:
            return None
        if TRAINED in self.shards:
            source = partial(self.source, TRAINED)
            return TaughtPanel(
                self.part, source, self.cache, self.left_out, self.progress, self.steps
            )
        try:
            return shipped_panel(self.part, self.config)
        except ConfigError as error:
            raise ConfigError(
                f"there is no {self.part.name}-{_TAUGHT}*.tar below "
                f"{places(beside_set(self.root))} for judges to learn from, and {error}; give the "
                "folder of the training shards too, as in --data TEST TRAINING, or set CODI_DATA "
                "to it"
            ) from error

    @property
    def facts(self) -> Mapping[str, Fact]:
        """Return the facts that can be judged, by name."""
        return self.panel.facts if self.panel else {}

    @property
    def words(self) -> Mapping[str, Mapping[str, str]]:
        """Return, for every fact, the words of every value that the judges know."""
        return self.panel.words if self.panel else {}

    def known_terms(self) -> Terms:
        """Return the facts with their values, and what shows them; may read training records."""
        values = {name: tuple(words.values()) for name, words in self.words.items()}
        shows = {
            m: tuple(name for name, fact in self.facts.items() if fact.shown_by(m))
            for m in self.part.modalities
        }
        return Terms(values, shows)

    # --- items ---

    def source(self, split: str) -> ShardSource:
        """Return the shards of a split.

        Raises:
            ConfigError: there are none.
        """
        if split not in self._open:
            root = beside_set(self.root) if split == TRAINED else self.root
            source = self.shards[split].build(self.config, root)
            assert isinstance(source, ShardSource)
            self._open[split] = source
        return self._open[split]

    def _at(self, split: str, index: int) -> int:
        """Return the place of an item in the shards."""
        if split not in self._order:
            order = np.random.default_rng(self.seed).permutation(len(self.source(split)))
            self._order[split] = [int(place) for place in order]
        return self._order[split][index]

    def item(self, split: str, index: int) -> tuple[dict[str, np.ndarray], ItemRecord]:
        """Return the arrays and captions of an item."""
        if (split, index) not in self._items:
            if len(self._items) > 512:
                self._items.clear()
            self._items[split, index] = self.source(split).read(self._at(split, index))
        return self._items[split, index]

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of the shards, of their order, of the judges and of their own source."""
        shards = [self.source(split).fingerprint for split in self.shards if split != TRAINED]
        judges = [self.panel.fingerprint] if self.panel else []
        return "-".join([*shards, *judges, code_digest(), str(self.seed)])

    def count(self, split: str) -> int:
        """Return how many items the shards of a split hold."""
        return len(self.source(split))

    def broken(self, split: str, index: int) -> str | None:
        """Return what is wrong with an item's record or media; None where all can be read.

        How many such items there are is said in `left_out`.
        """
        if (split, index) not in self._faults:
            self._faults[split, index] = self._fault(split, index)
            found = [why for why in self._faults.values() if why is not None]
            if found:
                what = f"items of {self.part.name} that cannot be used"
                self.left_out[what] = f"{len(found)}, such as {found[0].rstrip('.')}"
        return self._faults[split, index]

    def _fault(self, split: str, index: int) -> str | None:
        try:
            self.truth(split, index)
            for name in self.part.modalities:
                if name in self.config.modalities:
                    self.medium(split, index, name)
        except ItemError as error:
            return str(error)
        return None

    def truth(self, split: str, index: int) -> Truth:
        """Return the facts of an item; a value that no judge knows stays as its record has it."""
        item = self.source(split).items[self._at(split, index)]
        facts = self.facts.items()
        found = {n: str(stated(self.part, fact, item, fact.at)) for n, fact in facts}
        return Truth({name: self.words[name].get(value, value) for name, value in found.items()})

    def caption(self, split: str, index: int, given: Input) -> str:
        """Return one of the item's captions that describe what `given` is shown by.

        Raises:
            ItemError: it has none.
        """
        rng = np.random.default_rng((index, *given.shows.encode()))
        _, record = self.item(split, index)
        text = self.source(split).caption(record, given.shows, rng).text
        if not text.strip():
            raise self._lacks(split, index, "caption")
        return text

    def medium(self, split: str, index: int, modality: str) -> Any:
        """Return a picture, a clip, a sound, or a caption.

        Raises:
            ItemError: the item has none, or a damaged one.
        """
        if modality_entry(modality).is_caption:
            return self.caption(split, index, Input(modality))
        arrays, _ = self.item(split, index)
        if modality not in arrays:
            raise self._lacks(split, index, modality)
        kind = self.config.media(modality)
        return kind.from_tensor(kind.to_tensor([arrays[modality]]))[0]

    def _lacks(self, split: str, index: int, what: str) -> ItemError:
        item = self.source(split).items[self._at(split, index)]
        return ItemError(f"{item.file}: item {item.key!r} has no {what}; add it or leave it out")

    # --- reading ---

    def read(self, modality: str, items: Sequence[Any]) -> list[Reading]:
        """Return what each object shows, by the judges of its modality, or says."""
        if modality_entry(modality).is_caption:
            return [Reading(self._stated(item), words=item) for item in items]
        found: list[dict[str, str]] = [{} for _ in items]
        for name, fact in self.facts.items():
            if modality in fact.judges:
                kind, values = fact.judges[modality], list(self.words[name].values())
                assert self.panel is not None
                seen = JUDGES[kind].read(self.panel.judge(name, kind), modality, items)
                for facts, value in zip(found, seen, strict=True):
                    facts[name] = values[value]
        return [Reading(facts) for facts in found]

    def _stated(self, sentence: str) -> dict[str, str]:
        """Return what a sentence says; of a fact with several values it says nothing."""
        found = {}
        for name, fact in self.facts.items():
            named = {w for w in self.words[name].values() if fact.told and said(sentence, w)}
            whole = {a for a in named if not any(a != b and said(b, a) for b in named)}
            if len(whole) == 1:
                found[name] = whole.pop()
        return found

    @property
    def described(self) -> Mapping[str, Any]:
        """Return the judges that there are by now."""
        return {"extractors": self.panel.described if self.panel else {}}


class RealPart(PartSuite):
    """One part of the suite "real": every single input to every single output, and the codecs.

    Args:
        part, config, root, cache, progress, steps, seed: as of `PartSuite`.
        shards: of the splits to judge by, first the one that is used, and of `TRAINED`, if any.
        encoders: the model's own prompt encoders.
        encodable: the modalities that it has encoders of.
    """

    def __init__(
        self,
        part: Part,
        config: ModelConfig,
        root: Roots,
        shards: Mapping[str, ShardsConfig],
        cache: Path,
        *,
        encoders: Extractor,
        encodable: Collection[str],
        progress: Progress = quiet,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(part, config, root, shards, cache, progress, steps, seed)
        self.name = f"{NAME}/{part.name}"
        self.encoders, self.encodable = encoders, tuple(encodable)
        self.available = tuple(split for split in shards if split != TRAINED)
        self.splits = self.available[:1]
        self.terms = self.known_terms()
        self.tasks = part_tasks(
            part.name, part.modalities, ("facts", "captions") if self.facts else ()
        )
        how = f"facts ({', '.join(self.facts)}) and retrieval" if self.facts else "retrieval alone"
        ships = ", judges that ship" if self.facts and TRAINED not in shards else ""
        self.note = (
            f"{part.name}: {self.splits[0]}, {self.count(self.splits[0])} items, {how}{ships}."
        )
        self._embedded: dict[tuple[str, Input, tuple[int, ...]], np.ndarray] = {}

    @cached_property
    def panel(self) -> Panel | None:
        """Return the judges; None where there are none, and `left_out` says why."""
        try:
            return super().panel
        except ConfigError as error:
            self.left_out[f"facts of {self.part.name}"] = str(error)
            return None

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of the items, the judges and the encoders."""
        return f"{super().fingerprint}-{self.encoders.digest[:12]}"

    @property
    def described(self) -> Mapping[str, Any]:
        """Return the judges, and the encoders that retrieval is by."""
        own = {**self.encoders.identity, "trained_on": "what the model was trained on"}
        return {"extractors": {self.encoders.name: own, **super().described["extractors"]}}

    def features(self, task: Task, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return embeddings (n, D) by the model's own prompt encoder of the modality."""
        del task
        if modality not in self.encodable:
            return {}
        return {_KIND.format(modality): self.encoders(modality, items)["features"]}

    def compare(
        self, task: Task, split: str, count: int, ledger_of: Callable[[Task], Ledger]
    ) -> Iterator[Cell]:
        """Yield how often an output is found among all outputs by its own prompt.

        True and coded media are found by their captions, and captions by them. Where a caption is
        true of several items, any of these is right, and chance counts them.
        """
        [made] = task.outputs
        given = task.inputs[0] if task.inputs else Input("text", shown_by=made)
        itself = task.path == "true" and made == given.modality
        if itself or not {made, given.modality} <= {*self.encodable}:
            return
        ledger = ledger_of(task)
        # A damaged item has no record, or one from before it was damaged.
        rows = [i for i in range(count) if i in ledger.records and not self.broken(split, i)]
        if not rows:
            return
        asked = self._asked(split, given, rows)
        found = ledger.rows(_KIND.format(made), rows[-1] + 1)[rows]
        matches = self._matches(split, given, rows)
        pairs = [((given.modality, made), asked, found, matches)]
        if not task.inputs and made != given.modality:
            pairs.append(((made, given.modality), found, asked, matches.T))
        for names, queries, targets, right in pairs:
            hits = found_within(queries, targets, RANKS, right)
            for k, hit, chance in zip(RANKS, hits, chance_within(right, RANKS), strict=True):
                yield Cell(
                    task=task.name,
                    output=made,
                    fact=f"{'+'.join(names)} recall_at_{k}",
                    split=split,
                    value=float(hit.mean()),
                    n=len(rows),
                    chance=chance,
                    ci95=wilson_interval(float(hit.sum()), len(rows)),
                    extractor=self.encoders.name,
                )

    def _asked(self, split: str, given: Input, indices: Sequence[int]) -> np.ndarray:
        """Return the embeddings (n, D) of the prompts that `given` makes of some items."""
        key = (split, given, tuple(indices))
        if key not in self._embedded:
            rows = [
                self.encoders(given.modality, [self._prompt(split, i, given) for i in some])
                for some in np.array_split(np.array(indices), max(len(indices) // 32, 1))
            ]
            self._embedded[key] = np.concatenate([found["features"] for found in rows])
        return self._embedded[key]

    def _prompt(self, split: str, index: int, given: Input) -> Any:
        if modality_entry(given.modality).is_caption:
            return self.caption(split, int(index), given)
        return self.medium(split, int(index), given.modality)

    def _matches(self, split: str, given: Input, indices: Sequence[int]) -> np.ndarray:
        """Return bool (n, n): whether prompt i is true of item j, by the captions of both."""
        known = [set(self.item(split, index)[1]["captions"]) for index in indices]
        told = known
        if modality_entry(given.modality).is_caption:
            told = [{self.caption(split, index, given)} for index in indices]
        found = np.array([[not some.isdisjoint(others) for others in known] for some in told])
        return found | np.eye(len(indices), dtype=bool)


def found_shards(
    part: Part, root: Roots, judged: Sequence[str] = _JUDGED
) -> dict[str, ShardsConfig]:
    """Return the shards of a part that are there, those of the splits `judged` by first.

    Without a split to judge by, a share of the training items is held out, by a hash of their keys.
    Judges learn from the training shards where CODI_DATA says, if there are none beside the others.
    """
    patterns = {split: f"{part.name}-{split}*.tar" for split in (*judged, _TAUGHT)}
    there = {split: p for split, p in patterns.items() if find_files(p, root)}
    taught = there.pop(_TAUGHT, None)
    if there and find_files(patterns[_TAUGHT], beside_set(root)):
        taught = patterns[_TAUGHT]
    if there or taught is None:
        named = {**there, **({} if taught is None else {TRAINED: taught})}
        return {split: shards_of(part, pattern) for split, pattern in named.items()}
    held_out = {split: shards_of(part, taught) for split in ("held-out", TRAINED)}
    return {
        "held-out": replace(held_out["held-out"], split="held-out"),
        TRAINED: replace(held_out[TRAINED], split="trained"),
    }


def shards_of(part: Part, *patterns: str) -> ShardsConfig:
    """Return the configuration of some of a part's shards."""
    return ShardsConfig(patterns, dict(part.captions), loop=part.loop)


def open_real(
    pipeline: Pipeline, root: Roots, cache: Path, seed: int, progress: Progress = quiet
) -> tuple[list[RealPart], dict[str, str]]:
    """Return the parts whose shards are below `root`, and what is missing of the others.

    Raises:
        ConfigError: there are none of any part.
    """
    config, folder = pipeline.config, pipeline.folder
    absent = [] if folder is None else missing_parts(folder, config)
    encodable = [
        name
        for name in config.modalities
        if config.parts(("encoders",), [name])
        and not {*config.parts(("encoders",), [name])} & {*absent}
    ]
    encoders, opened, missing = OwnExtractor(pipeline), [], {}
    for part in PARTS.values():
        shards = found_shards(part, root)
        if shards:
            opened.append(
                RealPart(
                    part,
                    config,
                    root,
                    shards,
                    cache,
                    encoders=encoders,
                    encodable=encodable,
                    progress=progress,
                    seed=seed,
                )
            )
        else:
            names = ", ".join(f"{part.name}-{split}*.tar" for split in (*_JUDGED, _TAUGHT))
            missing[part.name] = f"no {names} below {places(root)}"
    if not opened:
        raise ConfigError(
            f"{places(root)}: no shards of real data; they are called "
            f"PART-SPLIT*.tar, PART one of {', '.join(PARTS)}, SPLIT one of "
            f"{', '.join((*_JUDGED, _TAUGHT))}; give their folder with --data or CODI_DATA"
        )
    return opened, missing


_KIND = "{}.codi.features"
"""Under which name a ledger keeps the embeddings of a modality."""
