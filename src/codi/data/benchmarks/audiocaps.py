"""AudioCaps (Kim et al., 2019): a CSV of captions, and sounds that its users cut from YouTube.

`test.csv` has the columns audiocap_id, youtube_id, start_time, caption; five rows for each clip of
the test and validation splits. Sounds are called by the clip: `YOUTUBE_ID.wav`, `YYOUTUBE_ID.wav`
(as AudioSet's tools write it) or `YOUTUBE_ID_START.wav`; videos alike, `.mp4`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from codi.data.benchmarks.base import Benchmark, Example, existing, first_of

_ENDINGS = {"audio": ("wav", "flac", "mp3", "m4a"), "video": ("mp4", "mkv", "webm")}
_PLACES = {"audio": ("audio", "audios", "wav", "wavs", ""), "video": ("video", "videos", "")}


class AudioCaps(Benchmark):
    """Sounds of 10 s with captions; with the videos they come from where those are there too."""

    name = "audiocaps"
    splits = ("test", "val", "train")
    marks = ("test.csv", "val.csv", "dataset/test.csv")
    instructions = (
        "get test.csv, val.csv and train.csv from github.com/cdjkim/audiocaps (dataset/), and put "
        "the sounds, cut from YouTube at start_time for 10 s, beside them as "
        "audio/YOUTUBE_ID.wav; for tasks with pictures also video/YOUTUBE_ID.mp4"
    )

    def read(self, folder: Path, split: str) -> Iterator[Example]:
        """Yield the clips in the order of the list, all captions of a clip together."""
        path = first_of(folder, [f"{split}.csv", f"dataset/{split}.csv"], self.instructions)
        captions: dict[tuple[str, str], list[str]] = {}
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                clip = (row["youtube_id"], row["start_time"])
                captions.setdefault(clip, []).append(row["caption"].strip())
        for (clip_id, start), said in captions.items():
            files = {
                modality: found
                for modality in _ENDINGS
                for found in [_file(folder, split, modality, clip_id, start)]
                if found
            }
            yield Example(f"{clip_id}_{start}", tuple(said), files)


def _file(folder: Path, split: str, modality: str, clip: str, start: str) -> Path | None:
    stems = (clip, f"Y{clip}", f"{clip}_{start}")
    return existing(
        folder / place / below / f"{stem}.{ending}"
        for place in _PLACES[modality]
        for below in ("", split)
        for stem in stems
        for ending in _ENDINGS[modality]
    )
