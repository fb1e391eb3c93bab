"""Draw a scene: soft backgrounds, a shadow, and an anti-aliased object with a material.

A material is a texture that leaves the hue alone: light bands for metal, dark grain for wood, a
see-through inside for glass, dots for rubber. Knows nothing of sound, words or reading.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from codi.worlds.bounce.scene import FPS, FRAMES, SIZE_PX, Scene

FLOOR_PX = 60.0
"""Row on which the object lands."""
COLOURS = {
    "red": (222, 38, 42),
    "orange": (250, 136, 18),
    "yellow": (250, 218, 36),
    "green": (46, 168, 60),
    "cyan": (24, 198, 206),
    "blue": (44, 94, 236),
    "purple": (150, 58, 212),
    "pink": (252, 122, 190),
}
HORIZON_PX = 47
_BACKGROUNDS = {  # colours: top of the sky, horizon, far ground, near ground
    "day": ((168, 205, 238), (238, 246, 250), (222, 216, 200), (196, 186, 166)),
    "dusk": ((74, 66, 108), (206, 144, 132), (116, 88, 98), (80, 62, 78)),
    "night": ((8, 10, 26), (26, 34, 62), (30, 34, 48), (16, 18, 28)),
}
_LIGHTS = {  # (x, y, radius in px, share of white): clouds, the sun's haze, stars
    "day": ((12.0, 14.0, 4.5, 0.5), (19.0, 13.0, 6.0, 0.6), (50.0, 7.0, 6.0, 0.5)),
    "dusk": ((20.0, 47.0, 12.0, 0.25),),
    "night": tuple(
        (x, y, 0.7, 0.004 * light)
        for x, y, light in (
            (6.0, 9.0, 110.0), (15.0, 22.0, 70.0), (24.0, 5.0, 90.0), (33.0, 15.0, 70.0),
            (41.0, 27.0, 60.0), (47.0, 8.0, 120.0), (55.0, 19.0, 80.0), (60.0, 4.0, 70.0),
            (10.0, 35.0, 60.0), (29.0, 31.0, 50.0), (52.0, 36.0, 60.0),
        )
    ),
}  # fmt: skip
_SUPERSAMPLING = 2
_MARGIN_PX = 2


@lru_cache
def background_picture(name: str) -> np.ndarray:
    """Return the empty scene (64, 64, 3), float32 in [0, 255]. Not to be written to."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] + 0.5
    top, horizon, far, near = (np.array(c, dtype=float) for c in _BACKGROUNDS[name])
    sky = (y / HORIZON_PX)[..., None].clip(0.0, 1.0) ** 1.5
    ground = ((y - HORIZON_PX) / (SIZE_PX - HORIZON_PX))[..., None].clip(0.0, 1.0)
    picture = top + (horizon - top) * sky
    for light_x, light_y, radius, strength in _LIGHTS[name]:
        glow = np.exp(-((x - light_x) ** 2 + (y - light_y) ** 2) / (2.0 * radius**2))
        picture += (255.0 - picture) * strength * glow[..., None]
    below = (y - HORIZON_PX + 0.5).clip(0.0, 1.0)[..., None]
    picture += (far + (near - far) * ground - picture) * below
    return picture.clip(0.0, 255.0).astype(np.float32)


# Signed distances, in half extents: negative inside; u to the right, v down, both in [-1, 1].
def _ball(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v) - 1.0


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 1.0


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(v - 1.0, (2.0 * np.abs(u) - v - 1.0) * np.float32(1.0 / np.sqrt(5.0)))


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    outer = 2.0 / (1.0 + np.cos(np.pi / 5.0))
    inner = 0.5 * outer
    edge = np.array([inner * np.cos(np.pi / 5.0) - outer, inner * np.sin(np.pi / 5.0)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    side, down = np.abs(u), v - np.float32(outer - 1.0)
    distance = None
    for turn in (0.0, 0.4, 0.8):  # of pi; the tip whose sector holds the point is the nearest edge
        along = side * np.float32(np.sin(turn * np.pi)) - down * np.float32(np.cos(turn * np.pi))
        across = np.abs(
            side * np.float32(np.cos(turn * np.pi)) + down * np.float32(np.sin(turn * np.pi))
        )
        tip = (along - np.float32(outer)) * np.float32(normal[0]) + across * np.float32(normal[1])
        arm = np.maximum(tip, -along)
        distance = arm if distance is None else np.minimum(distance, arm)
    assert distance is not None
    return distance


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    short, long = np.minimum(a, b), np.maximum(a, b)
    return np.maximum(short - np.float32(0.37), long - 1.0)


SHAPES = {"ball": _ball, "square": _square, "triangle": _triangle, "star": _star, "cross": _cross}

Paint = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Opacity, factor on the colour, amount of white (1 is full): all of one array shape."""


def _bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((x - np.float32(centre)) / np.float32(width)) ** 2))


def _metal(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> Paint:
    del depth
    along = (u + v) * np.float32(0.7071)
    white = 0.95 * _bump(along, -0.28, 0.18) + 0.35 * _bump(along, 0.42, 0.1)
    gain = 1.0 - 0.4 * _bump(along, 0.08, 0.16) - 0.35 * _bump(along, 0.85, 0.3)
    return np.ones_like(u), gain, white


def _wood(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> Paint:
    del depth
    waves = np.cos(np.float32(2.0 * np.pi) * (1.55 * v + 0.09 * np.cos(2.5 * u + 0.6)))
    grain = (1.6 * waves + 0.3).clip(-1.0, 1.0)
    return np.ones_like(u), 0.79 + 0.24 * grain, np.full_like(u, 0.03)


def _glass(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> Paint:
    rim = (2.6 - depth).clip(0.0, 1.0)  # pixels: a thinner rim would not survive blur
    spot = _bump(np.hypot(u + 0.16, v + 0.3), 0.0, 0.17)
    opacity = np.maximum(0.3 + 0.7 * rim, 0.9 * spot)
    return opacity, np.ones_like(u), 0.95 * spot


def _rubber(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> Paint:
    step = np.float32(0.64)
    middle = np.hypot(u - step * np.round(u / step), v - step * np.round(v / step))
    dot = ((0.23 - middle) * 9.0 + 0.5).clip(0.0, 1.0)
    dot = dot * (depth - 1.0).clip(0.0, 1.0)  # a dot on the outline would change the shape
    return np.ones_like(u), 1.0 - 0.62 * dot, np.zeros_like(u)


MATERIALS = {"metal": _metal, "wood": _wood, "glass": _glass, "rubber": _rubber}


def paint(shape: str, material: str, extent_px: float, u_px: np.ndarray, v_px: np.ndarray) -> Paint:
    """Return the paint of an object at points given in pixels from its centre.

    The light comes from the upper left, and a dark line keeps the outline clear on any background.
    """
    half = np.float32(0.5 * extent_px)
    u, v = u_px / half, v_px / half
    depth = -half * SHAPES[shape](u, v)
    opacity, gain, white = MATERIALS[material](u, v, depth)
    inside = (depth * _SUPERSAMPLING + 0.5).clip(0.0, 1.0)
    outline = (1.3 - depth).clip(0.0, 1.0)
    gain = gain * (1.0 - 0.28 * outline) * (1.02 - 0.07 * (u + v))
    white = white * (1.0 - outline)
    return opacity * inside, gain * (1.0 - white), white  # mixed, for a sum would be clipped


def _average(points: np.ndarray) -> np.ndarray:
    """Return the means of blocks of supersampled points: (..., s H, s W) -> (..., H, W)."""
    s = _SUPERSAMPLING
    total = points[..., ::s, ::s].copy()
    for i, j in itertools.product(range(s), range(s)):
        if i or j:
            total += points[..., i::s, j::s]
    return total / np.float32(s * s)


def sprite(
    shape: str,
    material: str,
    extent_px: float,
    dx_px: np.ndarray,
    dy_px: np.ndarray,
    side_px: int | None = None,
) -> Paint:
    """Return pictures (F, P, P) of an object at sub-pixel offsets from the centre of the patch.

    Args:
        shape: one of `SHAPES`.
        material: one of `MATERIALS`.
        extent_px: height of the object.
        dx_px: offsets (F,) to the right.
        dy_px: offsets (F,) down.
        side_px: even side P of the patch; `patch_px(extent_px)` when None.

    Returns:
        Opacity (0 where only background shows), and the object's colour factor and amount of white,
        both already multiplied by the opacity: pixel = (1 - a) * background + g * colour + w * 255.
    """
    size = side_px or patch_px(extent_px)
    s = _SUPERSAMPLING
    points = ((np.arange(size * s) + 0.5) / s - 0.5 * size).astype(np.float32)
    u = points[None, None, :] - dx_px.astype(np.float32)[:, None, None]
    v = points[None, :, None] - dy_px.astype(np.float32)[:, None, None]
    u, v = np.broadcast_arrays(u, v)
    opacity, gain, white = paint(shape, material, extent_px, u, v)
    return _average(opacity), _average(opacity * gain), _average(opacity * white)


def patch_px(extent_px: float) -> int:
    """Return the side of the patch that holds an object: an even number of pixels."""
    return 2 * int(np.ceil(0.53 * extent_px + _MARGIN_PX))


def ground_shadows(extent_px: float, centres_x: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return the factor (F, rows, 64) by which an object's shadow dims the rows of the ground."""
    y, x = np.mgrid[HORIZON_PX:SIZE_PX, :SIZE_PX].astype(np.float32) + np.float32(0.5)
    heights = heights.astype(np.float32)
    reach = np.float32(extent_px) * (0.44 + 0.004 * heights)[:, None, None]
    u = (x - centres_x.astype(np.float32)[:, None, None]) / reach
    v = (y - FLOOR_PX - 0.3) / (0.2 * reach)
    strength = (0.5 / (1.0 + heights / 14.0))[:, None, None]
    return np.asarray(1.0 - strength * np.exp(-((u * u + v * v) ** 2)))


def render_frames(scene: Scene, times_s: np.ndarray) -> np.ndarray:
    """Return the pictures (F, 64, 64, 3), uint8, of `scene` at `times_s`."""
    heights, centres_x = scene.heights_px(times_s), scene.centres_x_px(times_s)
    centres_y = FLOOR_PX - heights - 0.5 * scene.extent_px
    frames = np.repeat(background_picture(scene.facts["background"])[None], len(times_s), axis=0)
    frames[:, HORIZON_PX:] *= ground_shadows(scene.extent_px, centres_x, heights)[..., None]
    column, row = np.floor(centres_x).astype(int), np.floor(centres_y).astype(int)
    opacity, gain, white = sprite(
        scene.facts["shape"],
        scene.facts["material"],
        scene.extent_px,
        centres_x - column,
        centres_y - row,
    )
    colour = np.array(COLOURS[scene.facts["colour"]], dtype=np.float32)
    painted = gain[..., None] * colour + white[..., None] * np.float32(255.0)
    half = opacity.shape[-1] // 2
    for frame, over, y, x, alpha in zip(frames, painted, row, column, opacity, strict=True):
        top, left = max(y - half, 0), max(x - half, 0)
        area = frame[top : y + half, left : x + half]
        rows = slice(top - y + half, top - y + half + area.shape[0])
        columns = slice(left - x + half, left - x + half + area.shape[1])
        area *= 1.0 - alpha[rows, columns, None]
        area += over[rows, columns]
    return (frames + 0.5).clip(0.0, 255.0).astype(np.uint8)


def render_video(scene: Scene) -> np.ndarray:
    """Return the clip (16, 64, 64, 3), uint8; frame i is the instant i/8 s."""
    return render_frames(scene, np.arange(FRAMES) / FPS)


def render_image(scene: Scene, frame: int) -> np.ndarray:
    """Return frame `frame` of the video of `scene`: (64, 64, 3), uint8."""
    return np.asarray(render_frames(scene, np.array([frame / FPS]))[0])
