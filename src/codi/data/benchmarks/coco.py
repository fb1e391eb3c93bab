"""COCO captions (Lin et al., 2014; Chen et al., 2015): annotations in JSON beside picture folders.

`annotations/captions_val2014.json` with `val2014/COCO_val2014_000000000042.jpg`, the same for 2017
and for training; Karpathy's split of 2014 is `dataset_coco.json`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from codi.data.benchmarks.base import Benchmark, Example, first_of


class Coco(Benchmark):
    """Pictures with five captions each."""

    name = "coco"
    marks = ("annotations", "dataset_coco.json")
    splits = ("val2014", "train2014", "val2017", "train2017", "karpathy-test", "karpathy-val")
    instructions = (
        "get val2014.zip and annotations_trainval2014.zip from cocodataset.org/#download (and "
        "dataset_coco.json of Karpathy's caption_datasets.zip), and unpack them into one folder"
    )

    def read(self, folder: Path, split: str) -> Iterator[Example]:
        """Yield the items in the order of the annotations."""
        if split.startswith("karpathy-"):
            yield from self._karpathy(folder, split.removeprefix("karpathy-"))
            return
        path = first_of(folder, [f"annotations/captions_{split}.json"], self.instructions)
        table = json.loads(path.read_text(encoding="utf-8"))
        captions: dict[int, list[str]] = defaultdict(list)
        for said in table["annotations"]:
            captions[said["image_id"]].append(said["caption"].strip())
        for image in table["images"]:
            yield _example(folder / split / image["file_name"], captions[image["id"]])

    def _karpathy(self, folder: Path, split: str) -> Iterator[Example]:
        names = ["dataset_coco.json", "annotations/dataset_coco.json"]
        table = json.loads(first_of(folder, names, self.instructions).read_text(encoding="utf-8"))
        for image in table["images"]:
            if image["split"] == split:
                said = [sentence["raw"].strip() for sentence in image["sentences"]]
                yield _example(folder / image["filepath"] / image["filename"], said)


def _example(path: Path, captions: list[str]) -> Example:
    return Example(path.stem, tuple(captions), {"image": path} if path.is_file() else {})
