"""MSR-VTT (Xu et al., 2016): videos, and a JSON with twenty sentences for each.

`test_videodatainfo.json` with `TestVideo/video7010.mp4`, `train_val_videodatainfo.json` with
`TrainValVideo/`; mirrors hold `MSRVTT_data.json` or `annotation/MSR_VTT.json` and one folder of
videos.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from codi.data.benchmarks.base import Benchmark, Example, existing, first_of

_FILES = {"test": "test_videodatainfo.json"}
_ALL = ("train_val_videodatainfo.json", "MSRVTT_data.json")
_FOLDERS = ("TestVideo", "TrainValVideo", "videos", "videos/all", "video")


class MsrVtt(Benchmark):
    """Videos of 10 to 30 s, most with sound, with twenty captions each."""

    name = "msrvtt"
    marks = (*_FILES.values(), *_ALL)
    splits = ("test", "validate", "train")
    instructions = (
        "get the videos and *_videodatainfo.json of the 2016 challenge (ms-multimedia-challenge), "
        "and unpack them into one folder: TestVideo/, TrainValVideo/ and the JSON files"
    )

    def read(self, folder: Path, split: str) -> Iterator[Example]:
        """Yield the videos in the order of their list."""
        names = [_FILES[split], *_ALL] if split in _FILES else _ALL
        table = json.loads(first_of(folder, names, self.instructions).read_text(encoding="utf-8"))
        captions: dict[str, list[str]] = defaultdict(list)
        for said in table["sentences"]:
            captions[said["video_id"]].append(said["caption"].strip())
        for video in table["videos"]:
            key = video["video_id"]
            if video.get("split", split) == split:
                path = existing(folder / place / f"{key}.mp4" for place in _FOLDERS)
                yield Example(key, tuple(captions[key]), {"video": path} if path else {})
