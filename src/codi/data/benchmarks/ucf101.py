"""UCF-101 (Soomro et al., 2012): a folder of clips for each class, and lists of three splits.

`UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi`, and in `ucfTrainTestlist/` files such as
`testlist01.txt` with a clip a line; lines of training lists end in the number of the class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from codi.data.benchmarks.base import Benchmark, Example, first_of


def words_of_class(name: str) -> str:
    """Return the class's name as a prompt.

    >>> words_of_class("ApplyEyeMakeup"), words_of_class("YoYo"), words_of_class("TaiChi")
    ('apply eye makeup', 'yo yo', 'tai chi')
    """
    return " ".join(re.findall(r"[A-Z][a-z]*|\d+", name)).lower()


class Ucf101(Benchmark):
    """Clips of 101 human actions; the caption is the name of the class."""

    name = "ucf101"
    marks = ("UCF-101",)
    splits = tuple(f"{part}{i:02d}" for part in ("test", "train") for i in (1, 2, 3))
    instructions = (
        "get UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from "
        "crcv.ucf.edu/data/UCF101.php, and unpack both into one folder: UCF-101/ and "
        "ucfTrainTestlist/"
    )

    def read(self, folder: Path, split: str) -> Iterator[Example]:
        """Yield the clips in the order of the list."""
        name = f"{split[:-2]}list{split[-2:]}.txt"
        lists = [f"{place}{name}" for place in ("ucfTrainTestlist/", "UCF-101/ucfTrainTestlist/")]
        path = first_of(folder, lists, self.instructions)
        for line in path.read_text(encoding="utf-8").split("\n"):
            words = line.split()
            if words:
                clip = folder / "UCF-101" / words[0]
                caption = words_of_class(clip.parent.name)
                yield Example(clip.stem, (caption,), {"video": clip} if clip.is_file() else {})
