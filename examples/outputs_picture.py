"""Draw what the default model makes of some sentences: the picture of outputs in the README.

python examples/outputs_picture.py docs/pictures/outputs.png

Nothing is chosen: every output is of seed 0 and the default settings. Clips stand over the sounds
that were made with them, with red lines where the oracle sees an impact in the clip.
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

import codi
from codi.worlds import bounce

CLIPS = (
    "a large red metal star bounces slowly at night",
    "a small green rubber ball bounces fast by day",
    "a large blue wooden square bounces slowly at dusk",
    "a large yellow glass triangle bounces slowly by day",
)
PICTURES = (
    "a large red metal ball by day",
    "a big blue rubber square at dusk",
    "a large green wooden ball at night",
    "a small purple metal star by day",
    "a handwritten three",
    "the digit seven",
    "a hand signing the number five",
    "a hand signing the number one",
    "a character with red hair and chain mail walking facing the viewer",
    "a character with green spiky hair and a white shirt walking right",
)
_PAPER, _GAP_PX, _SCALE = 250, 6, 1


def main(file: str, steps: int | None = None) -> None:
    """Write the picture.

    Args:
        file: a PNG.
        steps: of the sampler; the model's own by default.
    """
    pipe = codi.load("tiny")
    made = [pipe.generate([("text", s)], to=["video", "audio"], steps=steps) for s in CLIPS]
    frames = [clip["video"][0].frames for clip in made]
    sounds = [clip["audio"][0].samples for clip in made]
    seen = [bounce.read_video(clip["video"][0].frames, 8.0).impact_times_s or () for clip in made]
    clips = bounce.contact_sheet(frames, sounds, seen, columns=2, scale=_SCALE)
    pictures = [
        np.asarray(pipe.generate([("text", s)], to=["image"], steps=steps)["image"][0])
        for s in PICTURES
    ]
    height, width = pictures[0].shape[:2]
    row = np.full((height + 2 * _GAP_PX, clips.shape[1], 3), _PAPER, np.uint8)
    apart = (clips.shape[1] - 2 * _GAP_PX - width) // (len(pictures) - 1)
    for i, picture in enumerate(pictures):
        left = _GAP_PX + i * apart
        row[_GAP_PX : _GAP_PX + height, left : left + width] = picture
    Image.fromarray(np.concatenate([clips, row])).save(file)


if __name__ == "__main__":
    main(sys.argv[1])
