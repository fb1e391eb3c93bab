"""Kinds of judges: which network reads a medium, what it learns from, and what it looks at.

A judge that looks at a medium several times takes what it sees most often. It knows no part of the
data and no fact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codi.evaluation.classifiers import (
    Classifier,
    MotionClassifier,
    PictureClassifier,
    SceneClassifier,
    SoundClassifier,
    VoiceClassifier,
)
from codi.evaluation.extractors.base import tensors_digest

_FRAMES = 4
"""Frames of each training clip that a judge of pictures sees: the same thing at several places."""

_EVERY = 4
"""Of a clip that it reads, a judge of pictures sees every fourth frame."""

SEED = 0
"""Of the first weights, the order of samples and the distortions of every judge."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class JudgeKind:
    """How one kind of judge sees or hears.

    Attributes:
        make: a fresh network for so many classes.
        learns: from the arrays of an item, by modality, to what is learned from it (k, ...).
        looks: for each modality it can read, from an object to what is looked at (v, ...).
        sees: what of a medium its network gets, in words.
        steps: of training; some minutes at most on one core.
        minds: the settings of media, such as "fps", that have to be those that it learned from.
    """

    make: Callable[[int], Classifier]
    learns: Callable[[Arrays], Tensor]
    looks: Mapping[str, Callable[[Any], Tensor]]
    sees: str
    steps: int = 900
    minds: tuple[str, ...] = ()

    def fresh(self, classes: int) -> Classifier:
        """Return an untrained network, the same one every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return self.make(classes)

    def identity(self, classifier: Classifier, source: str, trained_on: str) -> dict[str, str]:
        """Return what a result has to name of a judge, as of an extractor.

        Args:
            classifier: the judge.
            source: what it was trained on, for people.
            trained_on: the same, as a digest.
        """
        return {
            "name": type(classifier).__name__,
            "source": source,
            "sha256": tensors_digest(classifier),
            "preprocessing": self.sees,
            "trained_on": trained_on,
        }

    def read(self, classifier: Classifier, modality: str, items: Sequence[Any]) -> list[int]:
        """Return the class that most looks at each object see."""
        looks = [self.looks[modality](item) for item in items]
        found = iter(classifier.classify(torch.cat(looks)))
        votes = [[next(found) for _ in some] for some in looks]
        return [max(set(some), key=some.count) for some in votes]


def _as_tensor(frames: np.ndarray) -> Tensor:
    """Return (B, 3, H, W) in [-1, 1] of uint8 (B, H, W, 3)."""
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _waveform(samples: np.ndarray) -> Tensor:
    """Return (1, S) in [-1, 1] of 16-bit integers or floats (S,)."""
    scale = 32767.0 if samples.dtype == np.int16 else 1.0
    return torch.from_numpy(samples.astype(np.float32) / scale)[None]


def _pictures(arrays: Arrays) -> Tensor:
    clip = arrays["video"] if "video" in arrays else arrays["image"]
    return _as_tensor(clip[np.linspace(0, len(clip) - 1, min(_FRAMES, len(clip))).astype(int)])


_LOOKS_AT_PICTURES: Mapping[str, Callable[[Any], Tensor]] = {
    "image": lambda picture: _as_tensor(np.asarray(picture)[None]),
    "video": lambda clip: _as_tensor(clip.frames[::_EVERY]),
}
_LISTENS: Mapping[str, Callable[[Any], Tensor]] = {"audio": lambda sound: _waveform(sound.samples)}


def _recording(arrays: Arrays) -> Tensor:
    return _waveform(arrays["audio"])


JUDGES: dict[str, JudgeKind] = {
    "glyph": JudgeKind(
        lambda n: PictureClassifier(classes=n),
        _pictures,
        _LOOKS_AT_PICTURES,
        "the brightest channel, 32 px around the light",
    ),
    "scene": JudgeKind(
        lambda n: SceneClassifier(classes=n),
        _pictures,
        _LOOKS_AT_PICTURES,
        "the whole picture at 32 px",
        steps=500,
    ),
    "motion": JudgeKind(
        lambda n: MotionClassifier(classes=n),
        lambda arrays: _as_tensor(arrays["video"])[None],
        {"video": lambda clip: _as_tensor(clip.frames)[None]},
        "the light of eight frames at 32 px",
        steps=500,
        minds=("frames", "fps"),
    ),
    "voice": JudgeKind(
        lambda n: VoiceClassifier(classes=n),
        _recording,
        _LISTENS,
        "log-mel of the loudest 1.5 s, 40 bands",
        minds=("sample_rate_hz",),
    ),
    "sound": JudgeKind(
        lambda n: SoundClassifier(classes=n),
        _recording,
        _LISTENS,
        "log-mel, 48 bands",
        minds=("sample_rate_hz",),
    ),
}
"""Every kind of judge that a part of the data can name."""
