"""The suite "digits": real recordings and handwriting, judged by classifiers trained on others."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from codi import media
from codi.build import ModelConfig
from codi.config import ConfigError
from codi.data.source import Record as ItemRecord
from codi.data.source import ShardsConfig, ShardSource
from codi.evaluation.classifiers import (
    CLASSES,
    Classifier,
    PictureClassifier,
    Progress,
    VoiceClassifier,
    quiet,
    train_classifier,
)
from codi.evaluation.records import Reading
from codi.evaluation.suites import DIGITS, MEDIA, Input, Suite, Terms, Truth
from codi.modalities import modality as modality_entry
from codi.weights import load_part, save_part

FILES = {"trained": ("digits-train*.tar",), "held-out": ("digits-val*.tar",)}
"""Where the shards of each split are, below the data folder."""

CAPTIONS = {
    "audio": "voice|the digit",
    "image": "handwritten|the digit",
    "video": "handwritten|the digit",
    "text": "the digit",
}
TRAINING_STEPS = 900
"""Of each classifier; a minute or two on one core."""

_FRAMES = 4
"""Frames of each training clip that the picture classifier sees: the digit at several places."""


class DigitsSuite(Suite):
    """Items of tar shards; pictures and voices are read by `codi.evaluation.classifiers`."""

    name = "digits"
    tasks = DIGITS
    splits = ("held-out",)
    terms = Terms({"digit": CLASSES}, dict.fromkeys(MEDIA, ("digit",)))
    note = "held-out: every recording and drawing of the validation shards, none of them trained on"

    def __init__(
        self,
        config: ModelConfig,
        root: Path | None,
        cache: Path,
        progress: Progress = quiet,
        steps: int = TRAINING_STEPS,
    ) -> None:
        self.steps = steps
        self.config = config
        self.root = root
        self.cache = cache
        self.progress = progress
        self._open: dict[str, ShardSource] = {}
        self._items: dict[tuple[str, int], tuple[dict[str, np.ndarray], ItemRecord]] = {}

    def _source(self, split: str) -> ShardSource:
        if split not in self._open:
            source = ShardsConfig(FILES[split], CAPTIONS).build(self.config, self.root)
            assert isinstance(source, ShardSource)
            self._open[split] = source
        return self._open[split]

    def _item(self, split: str, index: int) -> tuple[dict[str, np.ndarray], ItemRecord]:
        if (split, index) not in self._items:
            if len(self._items) > 512:
                self._items.clear()
            self._items[split, index] = self._source(split).read(index)
        return self._items[split, index]

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of the shards and of this judge's own source."""
        shards = [self._source(split).fingerprint for split in FILES]
        own = [Path(__file__), Path(__file__).with_name("classifiers.py")]
        code = hashlib.sha256(b"".join(path.read_bytes() for path in own)).hexdigest()[:12]
        return "-".join([*shards, code])

    def count(self, split: str) -> int:
        """Return how many items the shards of a split hold."""
        return len(self._source(split))

    def truth(self, split: str, index: int) -> Truth:
        """Return the digit of an item."""
        _, record = self._item(split, index)
        return Truth({"digit": CLASSES[int(record["labels"]["digit"])]})

    def caption(self, split: str, index: int, given: Input) -> str:
        """Return one of the item's captions that describe what `given` is shown by."""
        rng = np.random.default_rng((index, *given.shows.encode()))
        _, record = self._item(split, index)
        return self._source(split).caption(record, given.shows, rng).text

    def medium(self, split: str, index: int, modality: str) -> Any:
        """Return a drawing, a clip of it, a recording, or a caption."""
        if modality_entry(modality).is_caption:
            return self.caption(split, index, Input(modality))
        arrays, _ = self._item(split, index)
        if modality not in arrays:
            raise ConfigError(f"the digit shards have no {modality}; leave out tasks with it")
        item: Any = _OBJECTS[modality](arrays[modality], self.config)
        return item

    # --- reading ---

    def read(self, modality: str, items: Sequence[Any]) -> list[Reading]:
        """Return the digit that each object shows, says or names."""
        return _READ[modality](self, items)

    def _read_pictures(self, items: Sequence[Image.Image]) -> list[Reading]:
        frames = np.stack([np.asarray(item) for item in items])
        return _readings(self.pictures.classify(_as_tensor(frames)))

    def _read_clips(self, items: Sequence[media.Video]) -> list[Reading]:
        """Read every fourth frame of a clip and take the digit that most of them show."""
        seen = [self.pictures.classify(_as_tensor(item.frames[::4])) for item in items]
        return _readings([max(set(votes), key=votes.count) for votes in seen])

    def _read_sounds(self, items: Sequence[media.Audio]) -> list[Reading]:
        return _readings(self.voices.classify(_waveforms([item.samples for item in items])))

    def _read_words(self, items: Sequence[str]) -> list[Reading]:
        """Read a caption that names one digit; one that names several says nothing."""
        said = [{w for w in re.findall("[a-z]+", item.lower()) if w in CLASSES} for item in items]
        return [
            Reading({"digit": words.pop()} if len(words) == 1 else {}, words=item)
            for words, item in zip(said, items, strict=True)
        ]

    @cached_property
    def pictures(self) -> Classifier:
        """Return the judge of drawings, trained on frames of the training clips."""
        return self._judge("pictures", PictureClassifier, self._frames)

    @cached_property
    def voices(self) -> Classifier:
        """Return the judge of voices, trained on the training recordings."""
        return self._judge("voices", VoiceClassifier, self._recordings)

    def _judge(
        self,
        name: str,
        make: Callable[[], Classifier],
        data: Callable[[], tuple[list[Tensor], list[int]]],
    ) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same judge every time
            classifier = make()
        folder = self.cache / f"{name}-{hashlib.sha256(self.fingerprint.encode()).hexdigest()[:12]}"
        part = f"classifiers.{name}"
        try:
            load_part(classifier, folder, part)
        except ConfigError:  # not there yet, or of another shape: both are mended by training
            media_, labels = data()
            what = f"training the judge of {name}"
            train_classifier(
                classifier, media_, labels, steps=self.steps, what=what, progress=self.progress
            )
            save_part(classifier, folder, part)
        return classifier.eval()

    def _frames(self) -> tuple[list[Tensor], list[int]]:
        source = self._source("trained")
        clips, labels = [], []
        for index in range(len(source)):
            arrays, record = source.read(index)
            clip = arrays["video"] if "video" in arrays else arrays["image"]
            some = clip[np.linspace(0, len(clip) - 1, min(_FRAMES, len(clip))).astype(int)]
            clips.append(_as_tensor(some))
            labels += [int(record["labels"]["digit"])] * len(some)
        return clips, labels

    def _recordings(self) -> tuple[list[Tensor], list[int]]:
        source = self._source("trained")
        read = [source.read(index) for index in range(len(source))]
        labels = [int(record["labels"]["digit"]) for _, record in read]
        return [_waveforms([arrays["audio"] for arrays, _ in read])], labels


def _readings(classes: Sequence[int]) -> list[Reading]:
    return [Reading({"digit": CLASSES[number]}) for number in classes]


def _as_tensor(frames: np.ndarray) -> Tensor:
    """Return (B, 3, H, W) in [-1, 1] of uint8 (B, H, W, 3)."""
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _waveforms(sounds: Sequence[np.ndarray]) -> Tensor:
    """Return (B, S) in [-1, 1] of 16-bit integers or floats."""
    samples = np.stack(list(sounds))
    scale = 32767.0 if samples.dtype == np.int16 else 1.0
    return torch.from_numpy(samples.astype(np.float32) / scale)


def _picture(array: np.ndarray, config: ModelConfig) -> Image.Image:
    del config
    return Image.fromarray(array if array.ndim == 3 else array[0])


def _clip(array: np.ndarray, config: ModelConfig) -> media.Video:
    return media.Video(array, config.modality("video").media["fps"])


def _sound(array: np.ndarray, config: ModelConfig) -> media.Audio:
    samples = array.astype(np.float32) / 32767.0
    return media.Audio(samples, config.modality("audio").media["sample_rate_hz"])


_OBJECTS: dict[str, Callable[[np.ndarray, ModelConfig], Any]] = {
    "image": _picture,
    "video": _clip,
    "audio": _sound,
}
_READ: dict[str, Callable[[DigitsSuite, Sequence[Any]], list[Reading]]] = {
    "image": DigitsSuite._read_pictures,
    "video": DigitsSuite._read_clips,
    "audio": DigitsSuite._read_sounds,
    "text": DigitsSuite._read_words,
}
