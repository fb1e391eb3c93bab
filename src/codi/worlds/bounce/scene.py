"""A scene: the facts, the physical quantities behind them, and how an object falls and bounces.

Heights are in pixels above the floor, times in seconds from the first frame. Knows no rendering.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from codi.worlds.bounce.facts import FACTS, SPLITS, Facts, check_facts, is_held_out

FRAMES = 16
FPS = 8
SIZE_PX = 64
SAMPLE_RATE_HZ = 16_000
SAMPLES = 32_000
DURATION_S = FRAMES / FPS

GRAVITY_PX_S2 = 240.0
EXTENT_PX = {"small": 16.5, "medium": 22.0, "large": 29.0}
"""Height of the object, whatever its shape, for each size."""
INTERVAL_S = {"slow": 0.92, "medium": 0.71, "fast": 0.55}
"""Time between the first and the second impact for each tempo."""
RESTITUTION = (0.94, 0.98)
"""Range of the ratio between one interval (and impact speed) and the one before."""
FIRST_IMPACT_S = 0.06
LAST_IMPACT_S = 1.86
"""No impact falls between this and the end, where neither the last frames nor the sound show it."""

_JITTER = 0.02
_LARGEST_DRIFT_PX_S = 4.0
_TEMPOS = np.array([INTERVAL_S[tempo] for tempo in FACTS["tempo"]])


@dataclass(frozen=True)
class Scene:
    """One clip of the world.

    Attributes:
        facts: a value for every fact.
        extent_px: height of the object.
        start_x_px: horizontal position of its centre at time 0.
        drift_px_s: horizontal speed.
        drop_px: height of its lowest point before the release.
        release_s: when it is let go; negative when the clip begins in the fall.
        restitution: ratio of the speeds after and before an impact.
        pitch: factor on the frequencies that the size implies.
        seed: of the little noise in the sound.
        impact_times_s: every contact with the floor within the clip, ascending.
    """

    facts: Facts
    extent_px: float
    start_x_px: float
    drift_px_s: float
    drop_px: float
    release_s: float
    restitution: float
    pitch: float
    seed: int
    impact_times_s: tuple[float, ...]

    def impact_speeds_px_s(self) -> np.ndarray:
        """Return the speed (impacts,) of the object at each impact."""
        first = np.sqrt(2.0 * GRAVITY_PX_S2 * self.drop_px)
        return first * self.restitution ** np.arange(len(self.impact_times_s))

    def heights_px(self, times_s: np.ndarray) -> np.ndarray:
        """Return the height of the lowest point of the object above the floor at each time."""
        fallen = np.maximum(times_s - self.release_s, 0.0)
        heights = self.drop_px - 0.5 * GRAVITY_PX_S2 * fallen**2
        speeds = self.restitution * self.impact_speeds_px_s()
        for impact_s, speed in zip(self.impact_times_s, speeds, strict=True):
            since = times_s - impact_s
            arc = speed * since - 0.5 * GRAVITY_PX_S2 * since**2
            heights = np.where(since >= 0.0, arc, heights)
        return np.maximum(heights, 0.0)

    def centres_x_px(self, times_s: np.ndarray) -> np.ndarray:
        """Return the horizontal position of the centre at each time."""
        return self.start_x_px + self.drift_px_s * times_s


def sample_scene(
    seed: int, split: str = "trained", facts: Mapping[str, str] | None = None
) -> Scene:
    """Draw a scene, the same for the same arguments.

    Args:
        seed: a non-negative integer.
        split: "trained" (no held-out pair of facts) or "held-out" (at least one).
        facts: facts to keep fixed; the others are drawn.

    Raises:
        ValueError: an unknown split or fact, or facts that contradict the split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    fixed = dict(facts or {})
    check_facts(fixed)
    rng = np.random.default_rng((SPLITS.index(split), seed))
    drawn = _draw_facts(rng, split, fixed)
    extent = EXTENT_PX[drawn["size"]] * (1.0 + _JITTER * rng.uniform(-1.0, 1.0))
    restitution, impacts = _draw_impacts(rng, INTERVAL_S[drawn["tempo"]])
    first_fall = (impacts[1] - impacts[0]) / (2.0 * restitution)
    drift = _LARGEST_DRIFT_PX_S * rng.uniform(-1.0, 1.0)
    return Scene(
        facts=drawn,
        extent_px=float(extent),
        start_x_px=_draw_start(rng, float(extent), drift),
        drift_px_s=drift,
        drop_px=0.5 * GRAVITY_PX_S2 * first_fall**2,
        release_s=impacts[0] - first_fall,
        restitution=restitution,
        pitch=1.0 + _JITTER * rng.uniform(-1.0, 1.0),
        seed=int(rng.integers(2**31)),
        impact_times_s=impacts,
    )


def _draw_facts(rng: np.random.Generator, split: str, fixed: Mapping[str, str]) -> Facts:
    """Return a value for every fact, uniform over what `fixed` and the split allow."""
    bound = ("shape", "colour", "material")  # the facts that held-out pairs speak of
    choices = [
        values
        for values in itertools.product(*([fixed[f]] if f in fixed else FACTS[f] for f in bound))
        if is_held_out(dict(zip(bound, values, strict=True))) == (split == "held-out")
    ]
    if not choices:
        raise ValueError(f"no scene of split {split!r} has the facts {dict(fixed)}; free one")
    drawn = dict(zip(bound, choices[rng.integers(len(choices))], strict=True))
    for fact, values in FACTS.items():
        if fact not in bound:
            value = values[rng.integers(len(values))]  # drawn even when fixed: same draws after it
            drawn[fact] = fixed.get(fact, value)
    return {fact: drawn[fact] for fact in FACTS}


def _draw_impacts(rng: np.random.Generator, usual_s: float) -> tuple[float, tuple[float, ...]]:
    """Return a restitution and at least two impact times, none near the end of the clip."""
    while True:
        interval = usual_s * (1.0 + _JITTER * rng.uniform(-1.0, 1.0))
        restitution = rng.uniform(*RESTITUTION)
        first = rng.uniform(FIRST_IMPACT_S, LAST_IMPACT_S - interval)
        intervals = interval * restitution ** np.arange(6)
        times = first + np.concatenate([[0.0], np.cumsum(intervals)])
        inside = times[times < DURATION_S]
        if inside[-1] <= LAST_IMPACT_S:
            return restitution, tuple(float(t) for t in inside)


def _draw_start(rng: np.random.Generator, extent: float, drift: float) -> float:
    """Return where the object starts, so that it stays inside the picture."""
    margin = 0.55 * extent + 1.0
    travelled = drift * DURATION_S
    low, high = margin - min(travelled, 0.0), SIZE_PX - margin - max(travelled, 0.0)
    return float(rng.uniform(low, high))
