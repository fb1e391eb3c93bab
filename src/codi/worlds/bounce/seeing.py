"""See the object in pictures by analysis and synthesis: draw every hypothesis, keep the likeliest.

The background is the nearest of the known ones; silhouettes tell roughly where the object is; then
drawn sprites of every shape, material, size and colour compete in squared error, at a position that
least squares refine below a pixel. Knows pictures only: what falls and when is read elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np

from codi.worlds.bounce import picture
from codi.worlds.bounce.facts import FACTS, Facts
from codi.worlds.bounce.scene import EXTENT_PX, SIZE_PX

_STEPS_PER_PX = 4
_PAD_PX = picture.patch_px(max(EXTENT_PX.values())) // 2
_MOST_FRAMES = 6
_FINALISTS = 3
_CLOSE = 1.5  # what costs more than this many times the least is no rival
_REFINEMENTS = 4
_PALETTE = np.array([picture.COLOURS[colour] for colour in FACTS["colour"]], dtype=np.float32)
_GROUND = slice(picture.HORIZON_PX, SIZE_PX)
_PLAIN_DIFFERENCE = 60.0
_BLUR = 0.14  # weight of each neighbour: half-way between a sharp picture and a decoded one


@dataclass(frozen=True)
class Sight:
    """What is seen: the facts, and where the centre of the object is in each frame (F,)."""

    facts: Facts
    centres_x_px: np.ndarray
    centres_y_px: np.ndarray

    def heights_px(self) -> np.ndarray:
        """Return how far the lowest point of the object is above the floor in each frame."""
        return picture.FLOOR_PX - self.centres_y_px - 0.5 * EXTENT_PX[self.facts["size"]]


@dataclass(frozen=True)
class _Object:
    """A hypothesis: an object, where its centre is in each frame, and its squared error."""

    size: str
    shape: str
    x: np.ndarray
    y: np.ndarray
    cost: float = np.inf
    material: str = FACTS["material"][0]
    colour: int = 0


def see(frames: np.ndarray) -> Sight:
    """Return what is likeliest in `frames` (F, 64, 64, 3), float32 in [0, 255], one object in all.

    Which object it is is read from at most six of the frames, where it is from all of them.
    """
    background = _nearest_background(frames)
    empty = picture.background_picture(background)
    frames = _recoloured(frames, empty)
    step = -(-len(frames) // _MOST_FRAMES)
    stage = _Stage(frames[::step], empty)
    rough = _rough_objects(frames, empty)
    tried: list[_Object] = []
    for size in FACTS["size"]:
        here = [replace(r, x=r.x[::step], y=r.y[::step]) for r in rough if r.size == size]
        tried += _dressed(stage, here)
    lowest = min(thing.cost for thing in tried)
    finalists = sorted(tried, key=lambda thing: thing.cost)[:_FINALISTS]
    finalists = [thing for thing in finalists if thing.cost <= _CLOSE * lowest]
    refined = [_dressed(stage, [_refined(stage, thing)])[0] for thing in finalists]
    best = min(refined, key=lambda thing: thing.cost)
    # A place found with the wrong shape is nearly right: the other shapes had worse ones till now.
    again = [replace(best, shape=shape) for shape in FACTS["shape"]]
    best = min(_dressed(stage, again), key=lambda thing: thing.cost)
    if step > 1:
        start = next(r for r in rough if (r.size, r.shape) == (best.size, best.shape))
        best = _refined(_Stage(frames, empty), replace(best, x=start.x, y=start.y))
    facts = {
        "shape": best.shape,
        "colour": FACTS["colour"][best.colour],
        "material": best.material,
        "size": best.size,
        "background": background,
    }
    return Sight(facts, best.x, best.y)


def _nearest_background(frames: np.ndarray) -> str:
    """Return the background that most pixels are close to."""
    few = frames[:: max(len(frames) // 4, 1), ::2, ::2]

    def distance(name: str) -> float:
        gap = np.abs(few - picture.background_picture(name)[::2, ::2]).mean(-1)
        return float(gap.clip(max=_PLAIN_DIFFERENCE).mean())

    return min(FACTS["background"], key=distance)


def _recoloured(frames: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Return `frames` with the offset of each channel that brings the background home."""
    gap = frames[::4] - empty
    plain = (np.abs(gap).max(-1) < _PLAIN_DIFFERENCE)[..., None]
    return frames - (gap * plain).sum((0, 1, 2)) / max(int(plain.sum()), 1)


def _objectness(frames: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Return in [0, 1] (F, 64, 64) how unlike the empty scene each pixel is, shadows aside."""
    dimmed = np.repeat(empty[None], len(frames), axis=0)
    ground = empty[_GROUND]
    share = (frames[:, _GROUND] * ground).sum(-1) / (ground * ground).sum(-1)
    dimmed[:, _GROUND] *= share.clip(0.5, 1.0)[..., None]
    gap = np.sqrt(((frames - dimmed) ** 2).sum(-1))
    return np.asarray((gap / 36.0).clip(0.0, 1.0))


@lru_cache
def _silhouettes() -> np.ndarray:
    """Return the spectra (sizes, shapes, 32, 17) of all silhouettes, in blocks of 2 x 2 pixels."""
    side = SIZE_PX // 2
    masks = np.zeros((len(EXTENT_PX), len(FACTS["shape"]), side, side), np.float32)
    zero = np.zeros(1)
    for i, extent in enumerate(EXTENT_PX.values()):
        for j, shape in enumerate(FACTS["shape"]):
            opacity = picture.sprite(shape, "wood", extent, zero, zero, SIZE_PX)[0][0]
            masks[i, j] = opacity.reshape(side, 2, side, 2).mean((1, 3))
    return np.fft.rfft2(masks).conj()


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the inner product (F,) over channels and pixels."""
    return np.asarray(np.einsum("fcij,fcij->f", a, b))


def _rough_objects(frames: np.ndarray, empty: np.ndarray) -> list[_Object]:
    """Return every size and shape, each where its silhouette covers the most of what is seen."""
    side = SIZE_PX // 2
    unlike = _objectness(frames, empty).reshape(-1, side, 2, side, 2).mean((2, 4)) - 0.45
    covered = np.fft.irfft2(np.fft.rfft2(unlike)[:, None, None] * _silhouettes(), s=(side, side))
    covered = np.fft.fftshift(covered, axes=(-2, -1))  # how much, for each centre
    objects = []
    for i, (size, extent) in enumerate(EXTENT_PX.items()):
        edge = int(0.25 * extent)  # blocks between a border and the centre of an object inside
        inner = covered[:, i, :, edge : side - edge + 1, edge : side - edge + 1]
        best = inner.reshape(*inner.shape[:2], -1).argmax(-1)  # (F, shapes)
        y, x = 2.0 * (np.array(np.divmod(best, inner.shape[-1])) + edge)
        for j, shape in enumerate(FACTS["shape"]):
            objects.append(_Object(size, shape, x[:, j], y[:, j]))
    return objects


def _blurred(maps: np.ndarray) -> np.ndarray:
    """Return `maps` (..., P, P), zero at their borders, slightly blurred."""
    rows = maps * np.float32(1.0 - 2.0 * _BLUR)
    rows[..., 1:, :] += np.float32(_BLUR) * maps[..., :-1, :]
    rows[..., :-1, :] += np.float32(_BLUR) * maps[..., 1:, :]
    both = rows * np.float32(1.0 - 2.0 * _BLUR)
    both[..., 1:] += np.float32(_BLUR) * rows[..., :-1]
    both[..., :-1] += np.float32(_BLUR) * rows[..., 1:]
    return both


@cache
def _bank(size: str, shape: str, across: int, down: int) -> np.ndarray:
    """Return (3, materials, P * P): opacity, colour and white at an offset in quarter pixels."""
    dx, dy = np.array([across / _STEPS_PER_PX]), np.array([down / _STEPS_PER_PX])
    drawn = [
        np.concatenate(picture.sprite(shape, material, EXTENT_PX[size], dx, dy))
        for material in FACTS["material"]
    ]
    maps = _blurred(np.stack(drawn, axis=1))
    return maps.reshape(*maps.shape[:2], -1)


class _Stage:
    """Frames before their empty background, cut into windows around an object."""

    def __init__(self, frames: np.ndarray, empty: np.ndarray) -> None:
        self.frames, self.empty = frames, empty
        self._seen = _padded(frames)  # (F, 3, 64 + 2 P / 2, ...)
        self._empty = _padded(empty[None])
        gap = (frames - empty)[:, : picture.HORIZON_PX]
        self._sky_error = np.einsum("fijc,fijc->f", gap, gap)

    def around(
        self, size: str, x: np.ndarray, y: np.ndarray, column: np.ndarray, row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cut windows around whole pixels for objects of a size, k of them in each frame in turn.

        Returns:
            What is seen and what the background would be with the shadow of an object at (x, y),
            both (k F, 3, P, P) and zero outside the picture, and the squared error (k F,) of that
            background over the whole frame.
        """
        extent = EXTENT_PX[size]
        side = picture.patch_px(extent)
        which = np.arange(len(x)) % len(self.frames)
        heights = np.maximum(picture.FLOOR_PX - y - 0.5 * extent, 0.0)
        shadow = picture.ground_shadows(extent, x, heights)[..., None]
        wrong = self.frames[which, _GROUND] - self.empty[_GROUND] * shadow
        dimmed = np.ones((len(x), SIZE_PX, SIZE_PX, 1), dtype=np.float32)
        dimmed[:, _GROUND] = shadow
        seen = _windows(self._seen, which, column, row, side)
        behind = _windows(self._empty, 0 * which, column, row, side)
        behind *= _windows(_padded(dimmed), np.arange(len(x)), column, row, side)
        error = self._sky_error[which] + np.einsum("fijc,fijc->f", wrong, wrong)
        return seen, behind, error


def _padded(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (F, H, W, C) as (F, C, ...) with zeros around them, enough for any window."""
    frames, height, width, channels = pictures.shape
    padded = np.zeros((frames, channels, height + 2 * _PAD_PX, width + 2 * _PAD_PX), np.float32)
    padded[:, :, _PAD_PX:-_PAD_PX, _PAD_PX:-_PAD_PX] = pictures.transpose(0, 3, 1, 2)
    return padded


def _windows(
    padded: np.ndarray, which: np.ndarray, column: np.ndarray, row: np.ndarray, side: int
) -> np.ndarray:
    """Return the patches (n, C, P, P) around whole pixels of `which` of `_padded` pictures."""
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    first = _PAD_PX - side // 2
    return np.asarray(views[which, :, row + first, column + first])


def _dressed(stage: _Stage, things: list[_Object]) -> list[_Object]:
    """Return objects of one size with their likeliest material and colour, and the cost of each.

    The cost of a colour c is a parabola in c for each material, so that no colour needs drawing.
    """
    size = things[0].size
    x, y = (np.concatenate([getattr(t, axis) for t in things]) for axis in "xy")  # (k F,)
    (column, across), (row, down) = (
        np.divmod(np.round(centre * _STEPS_PER_PX).astype(int), _STEPS_PER_PX) for centre in (x, y)
    )
    seen, behind, error = stage.around(size, x, y, column, row)
    gap = (seen - behind).reshape(len(x), 1, 3, -1)
    shapes = [thing.shape for thing in things for _ in stage.frames]
    maps = [_bank(size, s, int(i), int(j)) for s, i, j in zip(shapes, across, down, strict=True)]
    opacity, colour, white = np.stack(maps, axis=1)[..., None, :]  # (k F, materials, 1, P * P)
    left = opacity * behind.reshape(gap.shape)
    left += gap
    left -= np.float32(255.0) * white
    along = np.matmul(left, colour.swapaxes(-1, -2))[..., 0]  # (k F, materials, 3)
    costs = np.einsum("fmcn,fmcn->fm", left, left)[..., None] - 2.0 * along @ _PALETTE.T
    costs += np.einsum("fmcn,fmcn->fm", colour, colour)[..., None] * (_PALETTE**2).sum(1)
    costs += (error - np.einsum("fmcn,fmcn->f", gap, gap))[:, None, None]
    totals = costs.reshape(len(things), len(stage.frames), *costs.shape[1:]).sum(1)
    dressed = []
    for thing, total in zip(things, totals, strict=True):
        material, hue = divmod(int(total.argmin()), len(_PALETTE))
        chosen = FACTS["material"][material]
        dressed.append(replace(thing, cost=float(total.min()), material=chosen, colour=hue))
    return dressed


def _refined(stage: _Stage, thing: _Object) -> _Object:
    """Return the object at the centres that a few steps of Gauss-Newton find from its own."""
    shade = _PALETTE[thing.colour][:, None, None]
    for _ in range(_REFINEMENTS):
        column, row = np.floor(thing.x).astype(int), np.floor(thing.y).astype(int)
        seen, behind, _error = stage.around(thing.size, thing.x, thing.y, column, row)
        drawn = picture.sprite(
            thing.shape, thing.material, EXTENT_PX[thing.size], thing.x - column, thing.y - row
        )
        opacity, colour, white = _blurred(np.stack(drawn))[:, :, None]
        change = colour * shade + np.float32(255.0) * white - opacity * behind
        wrong = seen - behind - change
        down, right = (-slope for slope in np.gradient(change, axis=(-2, -1)))
        yy, xx, yx = (_dot(a, b) for a, b in ((down, down), (right, right), (down, right)))
        by, bx = _dot(down, wrong), _dot(right, wrong)
        scale = np.maximum(xx * yy - yx * yx, 1e-6)
        x = thing.x + ((yy * bx - yx * by) / scale).clip(-1.0, 1.0)
        y = thing.y + ((xx * by - yx * bx) / scale).clip(-1.0, 1.0)
        thing = replace(thing, x=x.clip(0.0, SIZE_PX - 1.0), y=y.clip(0.0, SIZE_PX - 1.0))
    return thing
