"""The suite "bounce": scenes that no training saw, and the world's own oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from codi import media
from codi.evaluation.records import Reading
from codi.evaluation.suites import BOUNCE, Input, Suite, Terms, Truth
from codi.worlds import bounce

FIRST_SCENE = 1 << 40
"""Seed of the first scene, far above those that training data are rendered from."""

TOLERANCE_S = 0.125
"""One frame at 8 frames a second: impacts further apart are not seen and heard together."""


def _match(a: Sequence[float], b: Sequence[float]) -> tuple[float, Sequence[float]]:
    found = bounce.match_impacts(a, b, tolerance_s=TOLERANCE_S)
    return found.f1, found.offsets_s


@lru_cache(maxsize=64)
def _scene(split: str, seed: int) -> bounce.Scene:
    return bounce.sample_scene(seed, split)


class BounceSuite(Suite):
    """Prompts rendered and written from scenes; readings by signal processing alone."""

    name = "bounce"
    tasks = BOUNCE
    terms = Terms(bounce.FACTS, bounce.SHOWS, _match)
    note = "held-out: scenes with a pair of facts that no training scene has"

    def __init__(self, seed: int = 0) -> None:
        self.first = FIRST_SCENE + seed * 1_000_003

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of the world's source: a changed oracle is a changed measure."""
        folder = Path(bounce.__file__).parent
        sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
        return f"bounce-{self.first}-{hashlib.sha256(sources).hexdigest()[:12]}"

    def count(self, split: str) -> None:
        """Return None: there are always more scenes."""
        del split

    def _of(self, split: str, index: int) -> bounce.Scene:
        return _scene(split, self.first + index)

    def _rng(self, index: int, what: str) -> np.random.Generator:
        return np.random.default_rng((self.first + index, *what.encode()))

    def truth(self, split: str, index: int) -> Truth:
        """Return the facts and impacts of a scene."""
        scene = self._of(split, index)
        return Truth(dict(scene.facts), scene.impact_times_s)

    def caption(self, split: str, index: int, given: Input) -> str:
        """Return a sentence that tells the facts that are asked for, in words drawn anew."""
        rng = self._rng(index, given.shows)
        facts = self._of(split, index).facts
        complete = given.tells is None
        return bounce.write_caption(facts, given.shows, rng, complete, given.tells).text

    def medium(self, split: str, index: int, modality: str) -> Any:
        """Return a picture (a frame drawn at random), a clip, a sound or a full caption."""
        return _RENDER[modality](self, split, index)

    def _picture(self, split: str, index: int) -> Image.Image:
        frame = int(self._rng(index, "frame").integers(bounce.FRAMES))
        return Image.fromarray(bounce.render_image(self._of(split, index), frame))

    def _clip(self, split: str, index: int) -> media.Video:
        return media.Video(bounce.render_video(self._of(split, index)), bounce.FPS)

    def _sound(self, split: str, index: int) -> media.Audio:
        samples = bounce.render_audio(self._of(split, index))
        return media.Audio(samples, bounce.SAMPLE_RATE_HZ)

    def _words(self, split: str, index: int) -> str:
        return self.caption(split, index, Input("text"))

    def read(self, modality: str, items: Sequence[Any]) -> list[Reading]:
        """Return what the oracle reads."""
        return [_READ[modality](item) for item in items]


def _rounded(times_s: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(t), 5) for t in times_s)


def _read_image(item: Image.Image) -> Reading:
    return Reading(dict(bounce.read_image(np.asarray(item))))


def _read_video(item: media.Video) -> Reading:
    found = bounce.read_video(item.frames, item.fps)
    return Reading(dict(found.facts), _rounded(found.impact_times_s))


def _read_audio(item: media.Audio) -> Reading:
    found = bounce.read_audio(item.samples, item.sample_rate_hz)
    return Reading(dict(found.facts), _rounded(found.impact_times_s))


def _read_text(item: str) -> Reading:
    return Reading(bounce.parse_caption(item) or {}, words=item)


_RENDER: dict[str, Callable[[BounceSuite, str, int], Any]] = {
    "image": BounceSuite._picture,
    "video": BounceSuite._clip,
    "audio": BounceSuite._sound,
    "text": BounceSuite._words,
}
_READ: dict[str, Callable[[Any], Reading]] = {
    "image": _read_image,
    "video": _read_video,
    "audio": _read_audio,
    "text": _read_text,
}
