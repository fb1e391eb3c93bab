"""Read impact times from heights: the likeliest chain of parabolas between contacts with the floor.

Between two contacts a falling body is at g/2 (t - a)(b - t), whatever its past, so every pair of
instants (a, b) has a cost, and dynamic programming finds the cheapest chain; Gauss-Newton then
takes it below the grid. Knows heights only, neither pictures nor tempo.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from codi.worlds.bounce.scene import GRAVITY_PX_S2

_GRID_S = 0.01
_LONGEST_CLIP_S = 4.0
_SHORTEST_S, _LONGEST_S = 0.33, 1.15
_NOISE_PX = 0.7
_WORST = 8.0
"""The cost of a height that nothing explains: one wild frame must not break the chain."""
_PRICE = 1.0
"""The cost of an impact, so that no more are told than the heights ask for."""
_DROPS_PX = np.arange(3.0, 40.0)


def impacts_from_heights(heights_px: np.ndarray, fps: float) -> tuple[float, ...]:
    """Return when a body with `heights_px` (F,) above the floor touches it, ascending, in seconds.

    Impacts are told up to the last frame, or 4 s. Heights may be noisy; none needs to be 0.
    """
    times_s = np.arange(min(len(heights_px), int(_LONGEST_CLIP_S * fps) + 1)) / fps
    if len(times_s) < 2:
        return ()
    heights = np.asarray(heights_px, dtype=float)[: len(times_s)]
    chain, drop = _cheapest_chain(heights, times_s)
    refined = _refined(chain, drop, heights, times_s)
    return tuple(float(t) for t in refined[:-1] if t <= times_s[-1] + _GRID_S)


@lru_cache(maxsize=4)
def _grid(frames: int, last_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return n contact times, k arc lengths, and the heights of drops and arcs.

    Returns:
        contacts (n,), lengths (k,), drops (n, d, F) and arcs (n, k, F); the heights are NaN in
        frames that a drop or an arc does not speak of.
    """
    times = np.linspace(0.0, last_s, frames)
    contacts = np.arange(0.0, last_s, _GRID_S)
    lengths = np.arange(_SHORTEST_S, _LONGEST_S, _GRID_S)
    since = times - contacts[:, None, None]
    arcs = 0.5 * GRAVITY_PX_S2 * since * (lengths[:, None] - since)
    arcs[(since < 0.0) | (since > lengths[:, None])] = np.nan
    drops = _dropping(contacts[:, None, None], _DROPS_PX[:, None], times)
    return contacts, lengths, drops.astype(np.float32), arcs.astype(np.float32)


def _dropping(contact_s: np.ndarray, drop_px: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Return heights before the first contact: held at `drop_px`, then let go in time for it."""
    release = contact_s - np.sqrt(2.0 * drop_px / GRAVITY_PX_S2)
    fallen = np.maximum(times_s - release, 0.0)
    heights = drop_px - 0.5 * GRAVITY_PX_S2 * fallen**2
    return np.where(times_s <= contact_s, heights, np.nan)


def _cost(expected: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return the summed cost of the frames (..., F) that `expected` speaks of."""
    squares = (expected - heights.astype(np.float32)) ** 2 / np.float32(2.0 * _NOISE_PX**2)
    return np.asarray(np.where(np.isnan(squares), 0.0, np.minimum(squares, _WORST)).sum(-1))


def _cheapest_chain(heights: np.ndarray, times: np.ndarray) -> tuple[list[float], float]:
    """Return the contacts of the cheapest chain, the last one after the clip, and the drop."""
    contacts, lengths, drops, arcs = _grid(len(times), float(times[-1]))
    first = _cost(drops, heights)  # (n, d)
    arc = _cost(arcs, heights) + _PRICE  # (n, k)
    best, before = first.min(1), np.full(len(contacts), -1)
    steps = np.round(lengths / _GRID_S).astype(int)
    cheapest, end = np.inf, (0, 0)
    for i in range(len(contacts)):
        reached = best[i] + arc[i]
        inside = steps < len(contacts) - i
        after = i + steps[inside]
        better = reached[inside] < best[after]
        best[after[better]] = reached[inside][better]
        before[after[better]] = i
        if not inside.all():
            last = reached[~inside].argmin()
            if reached[~inside][last] < cheapest:
                cheapest, end = float(reached[~inside][last]), (i, int(inside.sum() + last))
    chain = [contacts[end[0]] + lengths[end[1]]]
    i = end[0]
    while i >= 0:
        chain.insert(0, contacts[i])
        first_contact, i = i, before[i]
    return [float(t) for t in chain], float(_DROPS_PX[first[first_contact].argmin()])


def _chain_heights(parameters: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the heights (F,) of a drop from parameters[0] and contacts parameters[1:]."""
    drop, chain = np.maximum(parameters[0], 1.0), parameters[1:]
    heights = _dropping(chain[0], drop, times)
    for start, end in itertools.pairwise(chain):
        arc = 0.5 * GRAVITY_PX_S2 * (times - start) * (end - times)
        heights = np.where(times > start, arc, heights)
    return heights


def _refined(chain: list[float], drop: float, heights: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the contacts after damped Gauss-Newton steps on robustly weighted heights."""
    parameters = np.array([drop, *chain])
    steps = np.array([0.05] + [0.001] * len(chain))
    furthest = 20.0 * steps
    for _ in range(4):
        expected = _chain_heights(parameters, times)
        wrong = heights - expected
        weight = 1.0 / (1.0 + (wrong / (3.0 * _NOISE_PX)) ** 2)
        slopes = np.stack(
            [
                (_chain_heights(parameters + step, times) - expected) / step.max()
                for step in np.diag(steps)
            ],
            axis=1,
        )
        damping = np.diag(1e-5 / steps**2)  # what the frames do not tell stays as it was
        normal = slopes.T @ (weight[:, None] * slopes) + damping
        change = np.linalg.solve(normal, slopes.T @ (weight * wrong))
        parameters = parameters + change.clip(-furthest, furthest)
    return parameters[1:]
