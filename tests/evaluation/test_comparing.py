"""Numbers say how sure they are, however few the samples, and words go the same way everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from codi.evaluation.comparing import METRICS, Number
from codi.evaluation.metrics import java
from codi.evaluation.metrics.classes import inception_score
from codi.evaluation.statistics import wilson_interval


@dataclass
class Known:
    """Evidence that a test makes up; true rows are called after what they are of."""

    n: int = 1
    programs: Path | None = None
    frame_s: float = 0.1
    splits: int | None = None
    held: dict[str, np.ndarray] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    people: list[list[str]] = field(default_factory=list)
    when: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    alone: Known | None = None
    agree: np.ndarray | None = None

    def rows(self, modality: str, kind: str = "features", true: bool = False) -> np.ndarray:
        return self.held[f"true {modality}" if true else modality]

    def words(self) -> list[str]:
        return self.said

    def references(self) -> list[list[str]]:
        return self.people

    def times(self, modality: str) -> list[tuple[float, ...]]:
        return self.when[modality]

    def impacts(self) -> np.ndarray:
        assert self.agree is not None
        return self.agree

    def apart(self) -> Known:
        return self.alone or self


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


def test_a_score_is_the_mean_over_as_many_parts_as_a_row_names() -> None:
    scores = 3.0 * drawn(20, 5)
    whole, halves = (
        measured("inception_score", Known(20, splits=splits, held={"audio": scores}), "audio")
        for splits in (None, 2)
    )
    assert whole.value == pytest.approx(inception_score(scores))
    parts = [inception_score(scores[:10]), inception_score(scores[10:])]
    assert halves.value == pytest.approx(np.mean(parts))
    assert halves.value < whole.value
    with pytest.raises(ValueError, match="20 samples in 30 parts"):
        measured("inception_score", Known(20, splits=30, held={"audio": scores}), "audio")


def test_a_gain_in_synchrony_is_paired() -> None:
    when = [(0.2, 0.8), (0.5,), (0.3,)]
    alone = Known(3, when={"audio": [(0.2, 0.8), (0.9,), (0.3,)], "video": when})
    together = Known(3, when={"audio": when, "video": when}, alone=alone)
    assert measured("av_align_gain", together).value == pytest.approx(1 / 3)
    assert measured("av_align_gain", alone).value == 0.0


def test_a_gain_in_impacts_is_paired() -> None:
    together = Known(
        3, agree=np.array([1.0, 0.5, 0.0]), alone=Known(3, agree=np.array([0.5, 0.5, 0.5]))
    )
    found = measured("impacts_gain", together)
    assert found.value == 0.0
    assert found.ci95 is not None
    assert found.ci95[0] < 0.0 < found.ci95[1]


def test_frames_that_stay_are_consistent_and_frames_that_turn_are_not() -> None:
    angle = np.linspace(0.0, 2.0, 5)[:, None]
    turning = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    still = np.repeat(turning[:1], 5, axis=0)
    held = {"video": np.stack([still, 3.0 * turning])}  # lengths do not matter
    found = measured("frame_consistency", Known(2, held=held), "video")
    assert found.value == pytest.approx((1.0 + np.cos(0.5)) / 2)
    with pytest.raises(ValueError, match="extractor of the frames of clips"):
        measured("frame_consistency", Known(2, held={"video": drawn(2, 4)}), "video")


def test_desync_is_how_far_the_likeliest_offset_is_from_none() -> None:
    held = {"video": np.array([[0.2], [-0.4], [0.0]])}
    found = measured("desync", Known(3, held=held), "video", "audio")
    assert found.value == pytest.approx(0.2)
    assert found.ci95 is not None
    assert METRICS["desync"].better == "lower"


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
