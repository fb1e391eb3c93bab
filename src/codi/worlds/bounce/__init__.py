"""The bounce world: one object falls and bounces, seen, heard and told.

A procedural source of video, image, audio and captions of the same event, and an oracle that reads
the facts back from any of them with plain signal processing. Needs numpy only.
"""

from codi.worlds.bounce.captions import (
    VOCABULARY,
    Caption,
    parse_caption,
    truncate_caption,
    write_caption,
)
from codi.worlds.bounce.facts import FACTS, HELD_OUT, SHOWS, SPLITS, Facts, is_held_out
from codi.worlds.bounce.oracle import (
    ImpactMatch,
    Reading,
    match_impacts,
    read_audio,
    read_image,
    read_video,
)
from codi.worlds.bounce.picture import render_image, render_video
from codi.worlds.bounce.scene import (
    DURATION_S,
    FPS,
    FRAMES,
    SAMPLE_RATE_HZ,
    SAMPLES,
    SIZE_PX,
    Scene,
    sample_scene,
)
from codi.worlds.bounce.sheet import contact_sheet
from codi.worlds.bounce.sound import render_audio

__all__ = [
    "DURATION_S",
    "FACTS",
    "FPS",
    "FRAMES",
    "HELD_OUT",
    "SAMPLES",
    "SAMPLE_RATE_HZ",
    "SHOWS",
    "SIZE_PX",
    "SPLITS",
    "VOCABULARY",
    "Caption",
    "Facts",
    "ImpactMatch",
    "Reading",
    "Scene",
    "contact_sheet",
    "is_held_out",
    "match_impacts",
    "parse_caption",
    "read_audio",
    "read_image",
    "read_video",
    "render_audio",
    "render_image",
    "render_video",
    "sample_scene",
    "truncate_caption",
    "write_caption",
]
