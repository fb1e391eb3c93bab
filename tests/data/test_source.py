"""Sources: procedural worlds and tar shards."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from codi import media
from codi.config import ConfigError
from codi.data.shards import ItemError
from codi.data.source import (
    ShardsConfig,
    ShardSource,
    WorldConfig,
    WorldSource,
    beside_set,
    captions_in,
    data_root,
    data_roots,
    find_files,
    source_config,
)
from codi.data.store import open_store
from tests.small import small_config

CONFIG = small_config()
RNG = np.random.default_rng


# --- worlds ---


def _world(**changes: Any) -> WorldSource:
    settings: dict[str, Any] = {"world": "bounce", "clips": 3}
    return WorldSource(WorldConfig(**(settings | changes)))


def test_an_item_of_a_world_has_the_models_sizes() -> None:
    arrays, record = _world().read(1)
    assert {name: (a.shape, a.dtype) for name, a in arrays.items()} == {
        "video": ((16, 64, 64, 3), np.uint8),
        "audio": ((32_000,), np.int16),
    }
    assert json.loads(json.dumps(record)) == record


def test_an_item_is_a_function_of_seed_and_index() -> None:
    first, again = _world().read(1)[0], _world().read(1)[0]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for other in (_world().read(2)[0], _world(seed=1).read(1)[0]):
        assert not np.array_equal(first["video"], other["video"])


@pytest.mark.parametrize(
    "change", [{"clips": 4}, {"seed": 1}, {"split": "held-out"}], ids=lambda c: next(iter(c))
)
def test_another_world_has_another_fingerprint(change: dict[str, Any]) -> None:
    assert _world(**change).fingerprint != _world().fingerprint
    assert _world().fingerprint == _world().fingerprint


def test_a_caption_of_a_world_is_true_of_its_item() -> None:
    source = _world(clips=12)
    records = [source.read(i)[1] for i in range(12)]
    for shown_by in ("video", "image", "audio", "text"):
        captions = [source.caption(r, shown_by, RNG(i)) for i, r in enumerate(records)]
        assert source.matches([c.claim for c in captions], records).diagonal().all()


def test_a_caption_that_says_more_is_true_of_less() -> None:
    source = _world(clips=12)
    records = [source.read(i)[1] for i in range(12)]
    some, every = (
        [source.caption(r, "text", RNG(i), complete).claim for i, r in enumerate(records)]
        for complete in (False, True)
    )
    assert source.matches(every, records).sum() <= source.matches(some, records).sum()
    assert source.matches([{}], records).all()  # nothing said is true of all


def test_a_model_of_other_sizes_is_refused() -> None:
    larger = small_config("modalities.video.media.size_px=128")
    with pytest.raises(ConfigError, match=r"renders video with .*64.* model 'small' takes .*128"):
        WorldConfig("bounce", 3).build(larger, None)
    assert len(WorldConfig("bounce", 3).build(CONFIG, None)) == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('world = "bonce"', "unknown world 'bonce'; did you mean 'bounce'"),
        ('split = "heldout"', "unknown split 'heldout'; did you mean 'held-out'"),
        ("clips = 0", "clips is 0; give 1 or more"),
    ],
)
def test_a_world_that_is_not_there_is_an_error(setting: str, message: str) -> None:
    table = {"kind": "world", "world": "bounce", "clips": 3} | tomllib.loads(setting)
    with pytest.raises(ConfigError, match=f"mine: data.x: {message}"):
        source_config("x", table, "mine")


# --- shards ---


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def _filmstrip(frames: int, size_px: int) -> bytes:
    levels = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 10
    strip = np.broadcast_to(levels, (frames, size_px, size_px, 3)).reshape(-1, size_px, 3)
    return _encoded(Image.fromarray(strip))


def _sound(seconds: float, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(int(seconds * rate), 0.25), rate, format="FLAC")
    return buffer.getvalue()


def _shard(path: Path, count: int = 3) -> Path:
    members: dict[str, bytes] = {}
    for i in range(count):
        record = {
            "captions": [f"a voice says {i}", f"the digit {i}", f"a handwritten {i}"],
            "video": {"n": 8, "fps": 4.0},
            "class": i,
        }
        item = {
            "json": json.dumps(record).encode(),
            "image.webp": _encoded(Image.new("RGB", (48, 32), (10 * i, 0, 0))),
            "video.webp": _filmstrip(8, 32),
            "audio.flac": _sound(1.0, 8000),
        }
        members |= {f"item{i}.{ending}": data for ending, data in item.items()}
    return _tar(path, members)


def _tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def _shards(folder: Path, **settings: Any) -> ShardSource:
    source = ShardsConfig(("*.tar",), **settings).build(CONFIG, folder)
    assert isinstance(source, ShardSource)
    return source


def test_items_of_a_shard_are_fitted_to_the_model(tmp_path: Path) -> None:
    _shard(tmp_path / "digits.tar")
    source = _shards(tmp_path)
    assert len(source) == 3
    arrays, record = source.read(2)
    assert {name: (a.shape, a.dtype) for name, a in arrays.items()} == {
        "video": ((16, 64, 64, 3), np.uint8),
        "image": ((1, 64, 64, 3), np.uint8),
        "audio": ((32_000,), np.int16),
    }
    assert arrays["image"][0, 0, 0].tolist() == [20, 0, 0]
    assert np.abs(arrays["audio"][2000:14_000] - 8192).max() < 60
    assert not arrays["audio"][18_000:].any()  # silence fills it up
    assert record["labels"] == {"class": 2}


def test_a_clip_of_a_shard_keeps_its_time(tmp_path: Path) -> None:
    _shard(tmp_path / "digits.tar")
    video = _shards(tmp_path).read(0)[0]["video"]
    shown = video[:, 0, 0, 0] / 10  # 4 fps at 8 fps: each frame twice
    assert shown[0] == 0
    assert (np.diff(shown) >= 0).all()
    assert shown[-1] == 7


def test_shards_make_a_store(tmp_path: Path) -> None:
    _shard(tmp_path / "digits.tar")
    store = open_store(_shards(tmp_path), tmp_path / "cache")
    assert len(store) == 3
    assert set(store.arrays) == {"video", "image", "audio"}


def test_a_damaged_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = _shard(tmp_path / "digits.tar")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"digits\.tar: damaged or unreadable"):
        len(_shards(tmp_path))


def _plain_shard(path: Path) -> Path:
    """Write items as most shards on the web have them: bare endings, words in a file."""
    clip = media.Video(np.full((8, 32, 32, 3), 90, np.uint8), 4.0)
    clip.save(path.with_name("clip.mp4"))
    picture = io.BytesIO()
    Image.new("RGB", (48, 32), (20, 0, 0)).save(picture, "PNG")
    members = {
        "PNG": picture.getvalue(),
        "wav": _sound(1.0, 8000),
        "mp4": path.with_name("clip.mp4").read_bytes(),
        "txt": b"a red field\n",
        "cls": b"7",
    }
    return _tar(path, {f"set/0001.{ending}": data for ending, data in members.items()})


def test_members_with_bare_endings_are_told_by_them(tmp_path: Path) -> None:
    _plain_shard(tmp_path / "plain.tar")
    source = _shards(tmp_path)
    arrays, record = source.read(0)
    assert {name: a.shape for name, a in arrays.items()} == {
        "video": (16, 64, 64, 3),
        "image": (1, 64, 64, 3),
        "audio": (32_000,),
    }
    assert arrays["image"][0, 0, 0].tolist() == [20, 0, 0]
    assert abs(int(arrays["video"][3, 5, 5, 0]) - 90) < 8
    assert record["captions"] == ["a red field"]
    assert record["labels"] == {"text": "a red field", "class": 7}
    assert source.caption(record, "image", RNG(0)).text == "a red field"


@pytest.mark.parametrize(
    ("member", "data", "message"),
    [
        ("image.png", b"\xff" * 99, r"broken.tar: item 'a': .*image"),
        ("json", b"{", r"broken.tar: item 'a': its record is damaged .*; mend or leave out"),
        ("json", b"[]", r"its record is damaged \(not a JSON object\)"),
        ("cls", b"cat", "its record is damaged"),
        ("txt", b"\xff\xfe", "its record is damaged"),
        ("json", b'{"captions_of": 3}', "its record does not say what its media are"),
    ],
)
def test_a_damaged_member_is_an_error_that_names_its_item(
    tmp_path: Path, member: str, data: bytes, message: str
) -> None:
    _tar(tmp_path / "broken.tar", {f"a.{member}": data})
    with pytest.raises(ItemError, match=message):
        _shards(tmp_path).read(0)


def test_several_shards_are_one_source(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _shard(tmp_path / f"{name}.tar", count=2)
    assert len(_shards(tmp_path)) == 4


def test_a_caption_is_of_what_its_modality_shows(tmp_path: Path) -> None:
    _shard(tmp_path / "digits.tar")
    source = _shards(tmp_path, captions={"audio": "voice|the digit", "image": "handwritten"})
    record = source.read(1)[1]
    heard = {source.caption(record, "audio", RNG(i)).text for i in range(20)}
    seen = {source.caption(record, "image", RNG(i)).text for i in range(20)}
    any_ = {source.caption(record, "video", RNG(i)).text for i in range(40)}
    assert heard == {"a voice says 1", "the digit 1"}
    assert seen == {"a handwritten 1"}
    assert any_ == heard | seen


@pytest.mark.parametrize(
    ("record", "whole", "heard"),
    [
        ({"captions": "a bell"}, ["a bell"], "a bell"),
        ({"captions_of": {"audio": "a bell", "image": ["a cup"]}}, ["a bell", "a cup"], "a bell"),
        ({"captions": "", "text": "a bell"}, ["a bell"], "a bell"),
        ({"captions": [], "text": ""}, [], ""),
    ],
)
def test_a_caption_without_brackets_is_one(
    tmp_path: Path, record: dict[str, Any], whole: list[str], heard: str
) -> None:
    _tar(tmp_path / "bells.tar", {"a.json": json.dumps(record).encode()})
    source = _shards(tmp_path)
    kept = source.read(0)[1]
    assert kept["captions"] == captions_in(record) == whole
    old = {"captions": heard, "captions_of": {"audio": heard}}  # of a store that was made before
    for said in (kept, old):
        assert {source.caption(said, "audio", RNG(i)).text for i in range(20)} == {heard}
        assert source.matches(["a bell", "b"], [said]).tolist() == [[heard == "a bell"], [False]]


def test_a_caption_of_a_shard_is_true_of_items_that_have_it(tmp_path: Path) -> None:
    _shard(tmp_path / "digits.tar")
    source = _shards(tmp_path)
    records = [source.read(i)[1] for i in range(3)]
    claims = [source.caption(r, "audio", RNG(0)).claim for r in records]
    assert np.array_equal(source.matches(claims, records), np.eye(3, dtype=bool))


def test_other_files_or_another_model_make_another_fingerprint(tmp_path: Path) -> None:
    file = _shard(tmp_path / "digits.tar")
    first = _shards(tmp_path).fingerprint
    assert _shards(tmp_path).fingerprint == first
    smaller = small_config("modalities.image.media.size_px=32")
    assert ShardSource(ShardsConfig(("*.tar",)), [file], smaller).fingerprint != first
    _shard(file, count=5)
    assert _shards(tmp_path).fingerprint != first


def test_the_name_of_a_store_of_many_shards_is_short(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / f"a-long-name-of-a-shard-{i:05d}.tar").write_bytes(b"")
    assert len(_shards(tmp_path).fingerprint) < 100


def test_an_absolute_pattern_needs_no_folder(tmp_path: Path) -> None:
    _shard(tmp_path / "digits.tar")
    source = ShardsConfig((str(tmp_path / "d*.tar"),)).build(CONFIG, None)
    assert source is not None
    assert len(source) == 3


def test_shards_that_are_missing_are_an_error_or_left_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no shards match \*.tar below .*; give the folder"):
        ShardsConfig(("*.tar",)).build(CONFIG, tmp_path)
    assert ShardsConfig(("*.tar",), optional=True).build(CONFIG, tmp_path) is None


# --- both ---


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"mine: \[data.x\] unknown kind 'wrld'.* 'world'"):
        source_config("x", {"kind": "wrld"}, "mine")


def test_an_unknown_setting_names_the_nearest() -> None:
    table = {"kind": "world", "world": "bounce", "clip": 3}
    with pytest.raises(
        ConfigError, match=r"mine: data.x: unknown key 'clip'; did you mean 'clips'"
    ):
        source_config("x", table, "mine")


def test_the_folder_of_data_is_given_or_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CODI_DATA", raising=False)
    assert data_root() is None
    monkeypatch.setenv("CODI_DATA", str(tmp_path))
    assert data_root() == tmp_path
    (tmp_path / "else").mkdir()
    assert data_root(str(tmp_path / "else")) == tmp_path / "else"


def test_a_folder_of_data_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--data /nowhere: there is no such folder"):
        data_root("/nowhere")
    monkeypatch.setenv("CODI_DATA", "/nowhere")
    with pytest.raises(ConfigError, match="CODI_DATA=/nowhere: there is no such folder"):
        data_root()


def test_of_several_folders_the_first_that_has_files_gives_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CODI_DATA", raising=False)
    assert data_roots() == ()
    roots = tuple(tmp_path / name for name in "abc")
    for root in roots:
        root.mkdir()
    for root in roots[1:]:
        (root / "x.tar").touch()
    assert data_roots([str(root) for root in roots]) == roots
    assert data_roots(str(roots[0])) == roots[:1]
    assert find_files("*.tar", roots) == [roots[1] / "x.tar"]
    assert beside_set(roots[0]) == roots[:1]
    monkeypatch.setenv("CODI_DATA", str(roots[2]))
    assert data_roots() == roots[2:]
    assert data_roots([str(roots[0])]) == roots[:1]
    assert beside_set(roots[0]) == (roots[0], roots[2])
    assert beside_set(roots) == roots
    with pytest.raises(ConfigError, match=r"no shards match \*.gz below .*/a or .*/b; give the"):
        ShardsConfig(("*.gz",)).build(CONFIG, roots[:2])


# --- layouts of real data ---


def test_a_clip_that_loops_begins_again(tmp_path: Path) -> None:
    record = {"captions": ["x"], "video": {"n": 4, "fps": 8.0}}
    members = {"a.json": json.dumps(record).encode(), "a.video.webp": _filmstrip(4, 32)}
    _tar(tmp_path / "x.tar", members)
    held, looped = (_shards(tmp_path, loop=loop).read(0)[0]["video"] for loop in (False, True))
    assert (held[:, 0, 0, 0] / 10).tolist() == [0, 1, 2, *[3] * 13]
    assert (looped[:, 0, 0, 0] / 10).tolist() == [0, 1, 2, 3] * 4
    assert _shards(tmp_path, loop=True).fingerprint != _shards(tmp_path).fingerprint
    members["a.json"] = json.dumps(record | {"loop": True}).encode()  # it may say so itself
    _tar(tmp_path / "x.tar", members)
    assert np.array_equal(_shards(tmp_path).read(0)[0]["video"], looped)


def test_a_frame_may_serve_as_the_picture(tmp_path: Path) -> None:
    record = {"captions": ["x"], "video": {"n": 4, "fps": 8.0}, "image_frame": 2}
    members = {"a.json": json.dumps(record).encode(), "a.video.webp": _filmstrip(4, 32)}
    _tar(tmp_path / "x.tar", members)
    arrays, _ = _shards(tmp_path).read(0)
    assert arrays["image"].shape == (1, 64, 64, 3)
    assert (arrays["image"] == 20).all()
    members["a.json"] = json.dumps(record | {"image_frame": 4}).encode()
    _tar(tmp_path / "x.tar", members)
    with pytest.raises(ConfigError, match=r"x.tar: item 'a': frame 4 .* strip of 4 frames; name"):
        _shards(tmp_path).read(0)


def test_items_are_parted_by_their_keys(tmp_path: Path) -> None:
    _tar(tmp_path / "x.tar", {f"item{i}.txt": b"x" for i in range(80)})
    keys = {
        split: [item.key for item in _shards(tmp_path, split=split).items]
        for split in ("all", "trained", "held-out")
    }
    assert set(keys["trained"]) | set(keys["held-out"]) == set(keys["all"])
    assert not set(keys["trained"]) & set(keys["held-out"])
    assert 3 <= len(keys["held-out"]) <= 20
    table = {"kind": "shards", "files": ["x.tar"], "split": "heldout"}
    with pytest.raises(ConfigError, match="did you mean 'held-out'"):
        source_config("x", table, "mine")
