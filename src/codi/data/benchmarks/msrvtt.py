"""MSR-VTT (Xu et al., 2016): videos, and a JSON with twenty sentences for each.

`test_videodatainfo.json` with `TestVideo/video7010.mp4`, `train_val_videodatainfo.json` with
`TrainValVideo/`; mirrors hold `MSRVTT_data.json`, of the same form, and one folder of videos. The
archive of Frozen in Time (Bain et al., 2021) writes its sentences as COCO does, in
`annotation/MSR_VTT.json`, and lists the videos of a split in `structured-symlinks/`, in
`high-quality/` or beside it: `test_list_full.txt`, a name a line.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from codi.data.benchmarks.base import Benchmark, Example, existing, first_of

_FILES = {"test": "test_videodatainfo.json"}
_ALL = ("train_val_videodatainfo.json", "MSRVTT_data.json")
_ANNOTATION = "annotation/MSR_VTT.json"
_LISTS = {
    "test": "test_list_full.txt",
    "validate": "val_list_full.txt",
    "train": "train_list_full.txt",
}
_FOLDERS = ("TestVideo", "TrainValVideo", "videos", "videos/all", "video")

_Listed = tuple[list[str], dict[str, list[str]]]
"""Names of videos in order, and the sentences of every video."""


class MsrVtt(Benchmark):
    """Videos of 10 to 30 s, most with sound, with twenty captions each."""

    name = "msrvtt"
    marks = (*_FILES.values(), *_ALL, _ANNOTATION)
    splits = ("test", "validate", "train")
    instructions = (
        "get the videos and *_videodatainfo.json of the 2016 challenge (ms-multimedia-challenge), "
        "and unpack them into one folder: TestVideo/, TrainValVideo/ and the JSON files"
    )

    def read(self, folder: Path, split: str) -> Iterator[Example]:
        """Yield the videos in the order of their list."""
        names = [_FILES[split], *_ALL] if split in _FILES else _ALL
        path = first_of(folder, [*names, _ANNOTATION], self.instructions)
        table = json.loads(path.read_text(encoding="utf-8"))
        if "annotations" in table:
            keys, captions = self._annotated(folder, split, table)
        else:
            keys, captions = _described(split, table)
        for key in keys:
            video = existing(folder / place / f"{key}.mp4" for place in _FOLDERS)
            yield Example(key, tuple(captions[key]), {"video": video} if video else {})

    def _annotated(self, folder: Path, split: str, table: dict[str, Any]) -> _Listed:
        """Return the names of a split's own list, and what COCO's form says of all videos."""
        lists = [f"{place}structured-symlinks/{_LISTS[split]}" for place in ("high-quality/", "")]
        names = first_of(folder, lists, self.instructions).read_text(encoding="utf-8").split()
        said = [(one["image_id"], one["caption"]) for one in table["annotations"]]
        return names, _by_video(said)


def _described(split: str, table: dict[str, Any]) -> _Listed:
    """Return the names of a split, and what the challenge's form says of all videos."""
    names = [one["video_id"] for one in table["videos"] if one.get("split", split) == split]
    return names, _by_video((one["video_id"], one["caption"]) for one in table["sentences"])


def _by_video(said: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = defaultdict(list)
    for name, caption in said:
        captions[name].append(caption.strip())
    return captions
