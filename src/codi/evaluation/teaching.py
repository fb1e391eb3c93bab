"""Make the judges that ship: teach them, round them to half precision, and try them out.

It writes the folder that `codi.evaluation.shipped` reads.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from codi.build import load_config
from codi.config import ConfigError
from codi.data.source import Roots, places
from codi.evaluation.classifiers import Classifier
from codi.evaluation.extractors.base import file_digest, tensors_digest
from codi.evaluation.judges import JUDGES, SEED
from codi.evaluation.panels import TaughtPanel, counted
from codi.evaluation.parts import PARTS
from codi.evaluation.real import TRAINED, PartSuite, found_shards
from codi.evaluation.shipped import (
    TABLE,
    judge_name,
    media_of,
    part_name,
    read_judges,
    settings_digest,
)
from codi.media import atomic_write_text
from codi.progress import Progress, quiet
from codi.weights import save_part

MODEL = "tiny"
"""The preset whose sizes and rates the media have that the judges learn from."""

_AT_ONCE = 64
"""Media that are read together."""


def teach_judges(
    root: Roots, folder: Path, progress: Progress = quiet, steps: int | None = None
) -> dict[str, Any]:
    """Write the judges of all parts whose training shards are in reach, and return their table.

    Each is tried out on the val shards, or, where a part has none, on the eighth of the training
    shards that the hash of keys holds out. Test shards are not looked at. Parts that the folder
    has and that are not made anew stay as they are.

    Args:
        root: folder of the shards, or several.
        folder: gets `judges.json` and a file of weights for each part.
        progress: shows the training.
        steps: of training; those of each kind of judge by default.

    Raises:
        ConfigError: there are no training shards of any part with facts.
    """
    config = load_config(MODEL)
    made: dict[str, Any] = {}
    for part in PARTS.values():
        shards = found_shards(part, root, judged=("val",)) if part.facts else {}
        if TRAINED in shards:
            with TemporaryDirectory() as cache:
                suite = PartSuite(part, config, root, shards, Path(cache), progress, steps)
                made[part.name] = _taught(suite, folder)
            _write_table(folder, made)  # weights of other hashes than the table's are refused
    if not made:
        names = ", ".join(f"{name}-train*.tar" for name, part in PARTS.items() if part.facts)
        raise ConfigError(
            f"{places(root)}: none of {names} for judges to learn from; give their folder with "
            "--data or CODI_DATA"
        )
    return made


def _write_table(folder: Path, made: Mapping[str, Any]) -> None:
    """Write what is said of the judges of all parts: those `made`, and the others as they were."""
    kept = {**read_judges(folder), **made}
    table = {"parts": {name: kept[name] for name in PARTS if name in kept}}
    atomic_write_text(folder / TABLE, json.dumps(table, indent=1, ensure_ascii=False) + "\n")


def _taught(suite: PartSuite, folder: Path) -> dict[str, Any]:
    """Write the weights of a part's judges, and return what the table says of it."""
    part, panel = suite.part, suite.panel
    assert isinstance(panel, TaughtPanel)
    source, media = panel.source, media_of(part, suite.config)
    tried_on = next(split for split in suite.shards if split != TRAINED)
    rows = [i for i in range(suite.count(tried_on)) if not suite.broken(tried_on, i)]
    halves, judges = {}, {}
    for name, kind in panel.kinds:
        fact, whole = panel.facts[name], panel.judge(name, kind)
        half = copy.deepcopy(whole).half().float().eval()
        judge = judge_name(name, kind)
        halves[judge] = half
        judges[judge] = {
            "fact": name,
            "kind": kind,
            "name": type(half).__name__,
            "preprocessing": JUDGES[kind].sees,
            "steps": JUDGES[kind].steps if panel.steps is None else panel.steps,
            "seed": SEED,
            "numbers": sum(p.numel() for p in half.state_dict().values()),
            "sha256": tensors_digest(half),
            "settings": settings_digest(part, fact, kind, media),
            "accuracy": {
                modality: {
                    "fp16": _accuracy(suite, tried_on, rows, half, name, modality),
                    "fp32": _accuracy(suite, tried_on, rows, whole, name, modality),
                }
                for modality, of in fact.judges.items()
                if of == kind and modality in media and rows
            },
        }
    save_part(nn.ModuleDict(halves), folder, part_name(part), torch.float16)
    return {
        "items": counted(source),
        "taught_by": source.fingerprint,
        "shards": {file.name: file_digest(file) for file in source.files},
        "split": source.config.split,
        "tried_on": counted(suite.source(tried_on)),
        "tried_on_split": tried_on,
        "tried": len(rows),
        "media": media,
        "words": {name: dict(words) for name, words in panel.words.items()},
        "judges": judges,
    }


def _accuracy(
    suite: PartSuite, split: str, rows: Sequence[int], judge: Classifier, fact: str, modality: str
) -> float:
    """Return the share of true media (n of `rows`) that a judge reads right."""
    kind, words = suite.facts[fact].judges[modality], list(suite.words[fact].values())
    seen: list[int] = []
    for some in _pieces(rows):
        media = [suite.medium(split, row, modality) for row in some]
        seen += JUDGES[kind].read(judge, modality, media)
    right = [
        words[number] == suite.truth(split, row).facts[fact]
        for number, row in zip(seen, rows, strict=True)
    ]
    return round(float(np.mean(right)), 4)


def _pieces(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[i : i + _AT_ONCE] for i in range(0, len(rows), _AT_ONCE))
