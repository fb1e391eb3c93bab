"""Judges that ship with the package, for those who have no training shards: `weights/judges`.

`judges.json` says of each what it knows, what taught it and how well it judges; its weights lie
beside it, in half precision, one file for each part. `codi.evaluation.teaching` makes them.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from torch import nn

import codi.audio
from codi.build import ModelConfig
from codi.config import ConfigError
from codi.evaluation import classifiers, judges
from codi.evaluation.classifiers import Classifier
from codi.evaluation.extractors.base import tensors_digest
from codi.evaluation.judges import JUDGES, SEED
from codi.evaluation.panels import Panel
from codi.evaluation.parts import Fact, Part
from codi.folders import SHIPPED
from codi.modalities import modality as modality_entry
from codi.weights import load_part

FOLDER = SHIPPED / "judges"
"""Where the judges lie that ship."""

TABLE = "judges.json"
"""The file of a folder of judges that says what they are."""

Media = Mapping[str, Mapping[str, Any]]
"""Sizes and rates of media, by modality, as a model's configuration has them."""


class ShippedPanel(Panel):
    """Judges of a part from a folder.

    Args:
        part: what they judge.
        table: what `judges.json` says of the part.
        folder: of the weights.
    """

    def __init__(self, part: Part, table: Mapping[str, Any], folder: Path) -> None:
        super().__init__(part)
        self.table, self.folder = table, folder
        self.facts = {name: fact for name, fact in self.facts.items() if name in table["words"]}

    @property
    def words(self) -> Mapping[str, Mapping[str, str]]:
        """Return the words of every value, in the order of classes, as they were taught."""
        words: Mapping[str, Mapping[str, str]] = self.table["words"]
        return words

    @property
    def fingerprint(self) -> str:
        """Return a digest of the weights and of the words."""
        weights = {name: judge["sha256"] for name, judge in self.table["judges"].items()}
        depends = json.dumps([self.words, weights])
        return f"{self.part.name}-shipped-{hashlib.sha256(depends.encode()).hexdigest()[:12]}"

    def judge(self, fact: str, kind: str) -> Classifier:
        """Return a fact's judge of a kind.

        Raises:
            ConfigError: a missing or damaged file, or weights that are not those that ship.
        """
        judge = self._network[judge_name(fact, kind)]
        assert isinstance(judge, Classifier)
        return judge

    @cached_property
    def _network(self) -> nn.ModuleDict:
        """Return all judges of the part, which share a file."""
        found = nn.ModuleDict(
            {judge_name(f, k): JUDGES[k].fresh(len(self.words[f])) for f, k in self.kinds}
        )
        load_part(found, self.folder, part_name(self.part))
        for name, judge in found.items():
            wanted, own = self.table["judges"][name]["sha256"], tensors_digest(judge)
            if own != wanted:
                raise ConfigError(
                    f"{self.folder / self.part.name}: the weights of {name} have the sha256 "
                    f"{own[:16]}, and {TABLE} says {wanted[:16]}; install codi anew, or make the "
                    "folder anew with codi data judges"
                )
        return found.eval()

    @property
    def described(self) -> Mapping[str, Mapping[str, str]]:
        """Return all judges of the part."""
        of_all = {
            "source": f"the package, where {self.table['items']} taught it",
            "trained_on": self.table["taught_by"],
        }
        return {
            f"{self.part.name}-{name}": of_all
            | {key: judge[key] for key in ("name", "sha256", "preprocessing")}
            for name, judge in self.table["judges"].items()
        }


def shipped_panel(part: Part, config: ModelConfig) -> ShippedPanel:
    """Return the judges of a part that ship.

    Args:
        part: what they judge.
        config: of the model that makes the media.

    Raises:
        ConfigError: none ship, or they learned from media of other rates than the model's.
    """
    table = read_judges(FOLDER).get(part.name)
    if table is None:
        raise ConfigError(f"no judges of {part.name} ship ({FOLDER / TABLE} has none)")
    strange = unlike(part, table["media"], media_of(part, config))
    if strange is not None:
        raise ConfigError(f"the judges of {part.name} that ship learned from {strange}")
    return ShippedPanel(part, table, FOLDER)


def read_judges(folder: Path) -> dict[str, Any]:
    """Return what a folder of judges says of each part; nothing where there is no such folder.

    Raises:
        ConfigError: a damaged file.
    """
    path = folder / TABLE
    if not path.is_file():
        return {}
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        if not isinstance(parts, dict):
            raise ValueError("its parts are no table")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: damaged or unreadable ({type(error).__name__}: {error}); install codi anew, "
            "or make the folder anew with codi data judges"
        ) from error
    return parts


def judge_name(fact: str, kind: str) -> str:
    """Return what a judge is called among those of its part.

    >>> judge_name("digit", "voice")
    'digit-voice'
    """
    return f"{fact}-{kind}"


def part_name(part: Part) -> str:
    """Return as what the judges of a part are saved (`codi.weights.save_part`)."""
    return f"classifiers.{part.name}"


def media_of(part: Part, config: ModelConfig) -> dict[str, dict[str, Any]]:
    """Return the sizes and rates that a model gives to what judges of a part read."""
    read = {name for fact in part.facts for name in fact.judges}
    return {
        name: dict(config.modality(name).media)
        for name in part.modalities
        if name in read and name in config.modalities and not modality_entry(name).is_caption
    }


def unlike(part: Part, learned: Media, given: Media) -> str | None:
    """Say in what media differ that judges mind; None where they can read them."""
    for fact in part.facts:
        for name, kind in fact.judges.items():
            for key in JUDGES[kind].minds if name in given else ():
                ours, theirs = learned.get(name, {}).get(key), given[name].get(key)
                if ours != theirs:
                    return f"{name} with {key} {ours}, and the model's has {theirs}"
    return None


# --- staleness ---


def settings_digest(part: Part, fact: Fact, kind: str, media: Media) -> str:
    """Return a digest of all that a judge depends on but its shards: code, tables, rates, seed.

    Where it differs from the one that is kept beside a judge, the judge is to be made anew.
    """
    row = [part.name, fact.name, fact.at, fact.said_at, kind, JUDGES[kind].steps, SEED]
    depends = json.dumps([_code_that_teaches(), row, list(fact.values), media, part.loop])
    return hashlib.sha256(depends.encode()).hexdigest()[:16]


@cache
def _code_that_teaches() -> str:
    """Return a digest of the networks, of their inputs and of their training: of what they do."""
    modules = (classifiers, judges, codi.audio)
    files = [Path(module.__file__ or "") for module in modules]
    said = "\n".join(repr(list(_meant(ast.parse(file.read_bytes())))) for file in files)
    return hashlib.sha256(said.encode()).hexdigest()


def _meant(node: Any) -> Iterator[Any]:
    """Yield what a syntax tree means: no comments, no docstrings, no places, no empty fields.

    `ast.dump` says the same of a file in other words from one version of Python to the next.
    """
    if isinstance(node, list):
        for one in node:
            text = isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
            if not text:  # a docstring
                yield from _meant(one)
    elif isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if name not in ("ctx", "kind", "annotation", "returns") and value not in (None, []):
                yield name
                yield from _meant(value)
    else:
        yield repr(node)
