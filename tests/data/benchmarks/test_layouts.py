"""Data sets are read in the layouts in which they are distributed; what is missing is explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codi.config import ConfigError
from codi.data.benchmarks import BENCHMARKS
from tests.data.benchmarks import layouts


def test_coco_has_pictures_with_their_captions(tmp_path: Path) -> None:
    layouts.coco(tmp_path)
    found = BENCHMARKS["coco"].examples(tmp_path, "val2014")
    assert [e.key for e in found] == [f"COCO_val2014_{n:012d}" for n in (42, 73, 104)]
    assert found[1].captions == ("A dog number 73, said 0.", "A dog number 73, said 1.")
    assert found[0].files["image"].is_file()


def test_karpathys_split_of_coco(tmp_path: Path) -> None:
    layouts.coco(tmp_path / "coco")  # below a folder of data sets
    found = BENCHMARKS["coco"].examples(tmp_path, "karpathy-test")
    assert [e.captions for e in found] == [("Raw 42.",), ("Raw 104.",)]


def test_msrvtt_has_videos_with_their_sentences(tmp_path: Path) -> None:
    layouts.msrvtt(tmp_path)
    found = BENCHMARKS["msrvtt"].examples(tmp_path, "test")
    assert [e.key for e in found] == ["video7010", "video7011", "video7012"]
    assert found[2].captions == tuple(f"a clip of video7012 take {k}" for k in range(3))
    assert found[2].files["video"].name == "video7012.mp4"
    assert len(BENCHMARKS["msrvtt"].examples(tmp_path, "train")) == 3


@pytest.mark.parametrize("lists", ["high-quality/structured-symlinks", "structured-symlinks"])
def test_msrvtt_of_frozen_in_time_has_lists_of_its_own(lists: str, tmp_path: Path) -> None:
    layouts.msrvtt_of_frozen(tmp_path, lists)
    found = BENCHMARKS["msrvtt"].examples(tmp_path, "test")
    assert [e.key for e in found] == ["video7011", "video7010"]  # nobody has video7999
    assert found[0].captions == ("a clip of video7011 take 0", "a clip of video7011 take 1")
    assert found[0].files["video"] == tmp_path / "videos/all/video7011.mp4"
    assert [e.key for e in BENCHMARKS["msrvtt"].examples(tmp_path, "train")] == ["video3"]
    with pytest.raises(ConfigError, match=r"there is no .*val_list_full\.txt; get the videos"):
        BENCHMARKS["msrvtt"].examples(tmp_path, "validate")


def test_ucf101_has_clips_named_by_class(tmp_path: Path) -> None:
    layouts.ucf101(tmp_path)
    found = BENCHMARKS["ucf101"].examples(tmp_path, "test01")
    assert [e.captions for e in found] == [("apply eye makeup",)] * 2 + [("yo yo",)]
    assert found[2].key == "v_YoYo_g01_c01"
    assert [e.key[-7:] for e in BENCHMARKS["ucf101"].examples(tmp_path, "train01")] == [
        "g01_c01",
        "g01_c01",
    ]


def test_audiocaps_has_sounds_and_maybe_videos(tmp_path: Path) -> None:
    layouts.audiocaps(tmp_path)
    found = BENCHMARKS["audiocaps"].examples(tmp_path, "val")
    assert [e.key for e in found] == ["val-0_x_0", "val-1_x_30", "val-2_x_60"]
    assert found[0].captions == ("A dog barks, take 0", "A dog barks, take 1")
    assert set(found[0].files) == {"audio", "video"}
    (tmp_path / "audio/val-0_x.wav").rename(tmp_path / "audio/Yval-0_x.wav")
    (tmp_path / "audio/val-1_x.wav").rename(tmp_path / "audio/val-1_x_30.wav")
    assert len(BENCHMARKS["audiocaps"].examples(tmp_path, "val")) == 3


WRITERS: dict[str, Callable[[Path], Path]] = {
    "coco": layouts.coco,
    "msrvtt": layouts.msrvtt,
    "ucf101": layouts.ucf101,
    "audiocaps": layouts.audiocaps,
}


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_a_missing_data_set_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    reader = BENCHMARKS[name]
    for root in (None, tmp_path):
        with pytest.raises(ConfigError, match=f"no {name} in .*; get ") as raised:
            reader.examples(root, reader.splits[0])
        assert reader.instructions in str(raised.value)
    WRITERS[name](tmp_path)
    (tmp_path / "train_val_videodatainfo.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="unknown split"):
        reader.examples(tmp_path, "nonsense")
    with pytest.raises(ConfigError, match=r"there is no .*; get |no media .*; get "):
        reader.examples(tmp_path, reader.splits[-1])
