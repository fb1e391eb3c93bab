"""Numbers say how sure they are, however few the samples, and words go the same way everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from codi.evaluation.comparing import METRICS, Number
from codi.evaluation.metrics import java
from codi.evaluation.statistics import wilson_interval


@dataclass
class Known:
    """Evidence that a test makes up; true rows are called after what they are of."""

    n: int = 1
    programs: Path | None = None
    frame_s: float = 0.1
    held: dict[str, np.ndarray] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    people: list[list[str]] = field(default_factory=list)
    when: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)

    def rows(self, modality: str, kind: str = "features", true: bool = False) -> np.ndarray:
        return self.held[f"true {modality}" if true else modality]

    def words(self) -> list[str]:
        return self.said

    def references(self) -> list[list[str]]:
        return self.people

    def times(self, modality: str) -> list[tuple[float, ...]]:
        return self.when[modality]

    def apart(self) -> Known:
        return self


def measured(name: str, found: Known, *of: str) -> Number:
    return METRICS[name].compute(found, of)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("name", ["softmax_kl", "inception_score", "fad"])
def test_one_sample_has_no_interval(name: str) -> None:
    pieces = (4, 3) if name == "fad" else (3,)
    held = {"audio": drawn(1, *pieces), "true audio": drawn(1, *pieces, seed=1)}
    assert measured(name, Known(held=held), "audio").ci95 is None


def test_shares_that_are_all_the_same_are_not_certain() -> None:
    both = {"image": np.eye(3), "audio": np.eye(3)}
    found = measured("recall_at_1", Known(3, held=both), "image", "audio")
    assert (found.value, found.ci95) == (1.0, wilson_interval(3, 3))
    cosine = measured("sim", Known(3, held=both), "image", "audio")
    assert cosine.ci95 is not None
    assert cosine.ci95[0] < 0.5
    gain = measured("gain", Known(3, held=both), "image", "audio")
    assert gain.ci95 is not None
    assert gain.ci95[0] < -0.5 < 0.5 < gain.ci95[1]
    silent = Known(4, when={"audio": [()] * 4, "video": [()] * 4})
    assert measured("av_align", silent).ci95 == wilson_interval(0, 4)
    words = Known(2, said=["a", "b"], people=[["c d e f"], ["g h i j"]])
    for name in ("bleu_4", "rouge_l", "meteor_stem"):
        assert measured(name, words, "text").ci95 == wilson_interval(0, 2)
    assert (measured("cider_d", words, "text").ci95 or (0.0, 0.0))[1] > 1.0


@pytest.mark.parametrize(("frame_s", "value"), [(1 / 8, 1.0), (1 / 25, 0.0)])
def test_sound_and_picture_meet_within_a_frame_of_the_clip(frame_s: float, value: float) -> None:
    found = Known(1, frame_s=frame_s, when={"audio": [(0.5,)], "video": [(0.6,)]})
    assert measured("av_align", found).value == value


def test_every_scorer_is_given_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], list[list[str]]]] = []

    def spice(made: list[str], people: list[list[str]], folder: Path | None) -> np.ndarray:
        asked.append((made, people))
        return np.array([0.5] * len(made))

    monkeypatch.setattr(java, "spice", spice)
    found = Known(1, said=["A man's dog, barking!"], people=[["The dog (black) barks."]])
    for name in ("spice", "spider"):
        measured(name, found, "text")
        assert METRICS[name].tokens
    assert asked == [(["a man 's dog barking"], [["the dog black barks"]])] * 2
