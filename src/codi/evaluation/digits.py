"""The suite "digits": real recordings and handwriting, judged by classifiers trained on others."""

from __future__ import annotations

from pathlib import Path

from codi.build import ModelConfig
from codi.data.source import Roots
from codi.evaluation import parts
from codi.evaluation.classifiers import CLASSES, Progress, quiet
from codi.evaluation.real import TRAINED, PartSuite, shards_of
from codi.evaluation.suites import DIGITS, MEDIA, Terms

FILES = {TRAINED: "digits-train*.tar", "held-out": "digits-val*.tar"}
"""Where the shards of each split are, below the data folder."""


class DigitsSuite(PartSuite):
    """The digits of `codi.evaluation.parts`, with joint tasks."""

    name = "digits"
    tasks = DIGITS
    splits = ("held-out",)
    terms = Terms({"digit": CLASSES}, dict.fromkeys(MEDIA, ("digit",)))
    note = "held-out: every recording and drawing of the validation shards, none of them trained on"

    def __init__(
        self,
        config: ModelConfig,
        root: Roots,
        cache: Path,
        progress: Progress = quiet,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        shards = {split: shards_of(parts.DIGITS, file) for split, file in FILES.items()}
        super().__init__(parts.DIGITS, config, root, shards, cache, progress, steps, seed)
