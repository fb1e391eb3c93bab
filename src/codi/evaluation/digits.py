"""The suite "digits": real recordings and handwriting, judged by classifiers trained on others."""

from __future__ import annotations

from pathlib import Path

from codi.build import ModelConfig
from codi.data.source import Roots, beside_set, find_files
from codi.evaluation import parts
from codi.evaluation.classifiers import CLASSES
from codi.evaluation.real import TRAINED, PartSuite, shards_of
from codi.evaluation.suites import DIGITS, MEDIA, Terms
from codi.progress import Progress, quiet

_TRAINING = "digits-train*.tar"
"""The shards that teach the judges, below the data folder; without them, judges that ship."""

_HELD_OUT = {"validation": "digits-val*.tar", "test": "digits-test*.tar"}
"""The shards to judge by: the first that are there."""


class DigitsSuite(PartSuite):
    """The digits of `codi.evaluation.parts`, with joint tasks.

    Args:
        config, root, cache, progress, steps, seed: as of `PartSuite`.

    Raises:
        ConfigError: no training shards are in reach, and the judges that ship do not suit the
            model's media.
    """

    name = "digits"
    tasks = DIGITS
    splits = ("held-out",)
    terms = Terms({"digit": CLASSES}, dict.fromkeys(MEDIA, ("digit",)))

    def __init__(
        self,
        config: ModelConfig,
        root: Roots,
        cache: Path,
        progress: Progress = quiet,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        there = [kind for kind, pattern in _HELD_OUT.items() if find_files(pattern, root)]
        kind = next(iter(there), "validation")
        shards = {"held-out": shards_of(parts.DIGITS, _HELD_OUT[kind])}
        if find_files(_TRAINING, beside_set(root)):
            shards[TRAINED] = shards_of(parts.DIGITS, _TRAINING)
        super().__init__(parts.DIGITS, config, root, shards, cache, progress, steps, seed)
        ships = "" if TRAINED in shards else "; judges that ship"
        self.note = (
            f"held-out: every recording and drawing of the {kind} shards, none of them trained on"
            f"{ships}"
        )
        _ = self.panel  # so that a model that they do not suit is refused at once
