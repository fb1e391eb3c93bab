"""Tiny samples of data sets in exactly the layouts in which they are distributed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from codi import media

CLASSES = ("ApplyEyeMakeup", "YoYo")


def picture(seed: int, side: tuple[int, int] = (48, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*side, 3), dtype=np.uint8))


def video(path: Path, seed: int, sound: bool = True, seconds: float = 2.0) -> None:
    """Write a clip at 10 frames a second, with a click in its sound where it has one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (int(10 * seconds), 32, 48, 3), dtype=np.uint8)
    samples = 0.1 * rng.standard_normal(int(16_000 * seconds)).astype(np.float32)
    track = media.Audio(samples, 16_000) if sound else None
    media.save_video(path, media.Video(frames, 10.0, track))


def coco(root: Path, count: int = 4) -> Path:
    """Write val2014 with two captions a picture, a picture that is missing, and Karpathy's list."""
    (root / "annotations").mkdir(parents=True)
    (root / "val2014").mkdir()
    numbers = [42 + 31 * i for i in range(count)]
    names = {n: f"COCO_val2014_{n:012d}.jpg" for n in numbers}
    for number in numbers[:-1]:
        picture(number).save(root / "val2014" / names[number])
    said = [
        {"image_id": n, "id": 10 * n + k, "caption": f"A dog number {n}, said {k}.\n"}
        for k in range(2)
        for n in reversed(numbers)
    ]
    images = [
        {"id": n, "file_name": name, "height": 48, "width": 64, "license": 1}
        for n, name in names.items()
    ]
    table = {"info": {}, "licenses": [], "images": images, "annotations": said}
    (root / "annotations/captions_val2014.json").write_text(json.dumps(table))
    split = [
        {
            "filepath": "val2014",
            "filename": names[n],
            "cocoid": n,
            "split": "test" if i % 2 == 0 else "restval",
            "sentences": [{"raw": f"Raw {n}.", "tokens": ["raw"], "imgid": i, "sentid": n}],
        }
        for i, n in enumerate(numbers)
    ]
    (root / "dataset_coco.json").write_text(json.dumps({"images": split, "dataset": "coco"}))
    return root


def msrvtt(root: Path, count: int = 3) -> Path:
    """Write test videos, the last one without sound, and one of another split in the same list."""
    keys = [f"video{7010 + i}" for i in range(count)]
    for i, key in enumerate(keys):
        video(root / "TestVideo" / f"{key}.mp4", i, sound=i < count - 1)
    videos = [
        {"video_id": key, "split": "test", "category": 9, "id": i, "url": "", "start time": 0.0}
        for i, key in enumerate(keys)
    ]
    said = [
        {"caption": f"a clip of {key} take {k}", "video_id": key, "sen_id": k}
        for k in range(3)
        for key in keys
    ]
    for name, split in (("test", "test"), ("train_val", "train")):
        table = {"info": {}, "videos": videos, "sentences": said}
        table["videos"] = [v | {"split": split} for v in videos]
        (root / f"{name}_videodatainfo.json").write_text(json.dumps(table))
    return root


def msrvtt_of_frozen(root: Path, lists: str = "high-quality/structured-symlinks") -> Path:
    """Write two videos of the test list and one of the training list, as Frozen in Time has them.

    Args:
        root: folder of the data set.
        lists: folder of the lists in it.
    """
    keys = ["video7010", "video7011", "video3"]
    for i, key in enumerate(keys):
        video(root / "videos/all" / f"{key}.mp4", i)
    said = [
        {"caption": f"a clip of {key} take {k}\n", "image_id": key, "id": 3 * k + i}
        for k in range(2)
        for i, key in enumerate(reversed(keys))
    ]
    images = [{"id": key, "file_name": key} for key in keys]
    (root / "annotation").mkdir()
    table = {"info": {}, "images": images, "annotations": said}
    (root / "annotation/MSR_VTT.json").write_text(json.dumps(table))
    (root / lists).mkdir(parents=True)
    (root / lists / "test_list_full.txt").write_text("video7011\nvideo7010\nvideo7999\n")
    (root / lists / "train_list_full.txt").write_text("video3\n")
    return root


def ucf101(root: Path) -> Path:
    """Write two clips of two classes, all in the test list, the last one missing."""
    lines = []
    for i, name in enumerate(CLASSES):
        for clip in (1, 2):
            lines.append(f"{name}/v_{name}_g01_c0{clip}.avi")
            if lines[-1] != "YoYo/v_YoYo_g01_c02.avi":
                path = root / "UCF-101" / lines[-1]
                video(path.with_suffix(".mp4"), 2 * i + clip, sound=False)
                path.with_suffix(".mp4").rename(path)
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "testlist01.txt").write_text("\r\n".join(lines) + "\r\n")
    (lists / "trainlist01.txt").write_text(f"{lines[0]} 1\n{lines[2]} 101\n")
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n101 YoYo\n")
    return root


def audiocaps(root: Path, count: int = 3, videos: bool = True) -> Path:
    """Write a test and a validation list of clips with two captions each."""
    rng = np.random.default_rng(0)
    (root / "audio").mkdir(parents=True)
    for split in ("test", "val"):
        with (root / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
            for k in range(2):
                for i in range(count):
                    clip = f"{split}-{i}_x"
                    writer.writerow([10 * i + k, clip, 30 * i, f"A dog barks, take {k}"])
        for i in range(count):
            sound = 0.1 * rng.standard_normal(32_000)
            soundfile.write(root / "audio" / f"{split}-{i}_x.wav", sound, 16_000)
            if videos:
                video(root / "video" / f"{split}-{i}_x.mp4", i)
    return root
