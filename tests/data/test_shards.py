"""Shards: an index of what WebDataset would read, without holding it."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path

import pytest

from codi.config import ConfigError
from codi.data.shards import Item, index_shard

NAMES = (
    "a.json",
    "a.image.webp",
    "folder/b.Audio.FLAC",
    "folder/b.seg.0.txt",
    "./c.cls",
    "__index__",
    "__meta__/x.json",
    "no-ending",
    ".hidden",
    "v1.0/d.txt",
    "a.late.json",  # the key comes back, and is another item
)
"""Names of all sorts, in an order of their own."""


def _tar(path: Path, names: tuple[str, ...] = NAMES, size: int = 700) -> Path:
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for i, name in enumerate(names):
            entry = tarfile.TarInfo(name)
            entry.size = size + i
            tar.addfile(entry, io.BytesIO(bytes([i]) * (size + i)))
    return path


def _contents(items: list[Item]) -> list[tuple[str, dict[str, bytes]]]:
    return [(i.key, {ending: m.read() for ending, m in i.members.items()}) for i in items]


def test_the_items_are_those_that_webdataset_reads(tmp_path: Path) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    path = _tar(tmp_path / "x.tar")
    with path.open("rb") as stream:
        samples = list(group_by_keys(tar_file_expander([{"url": "x", "stream": stream}])))
    theirs = [
        (s["__key__"], {k: v for k, v in s.items() if not k.startswith("__")}) for s in samples
    ]
    assert _contents(index_shard(path)) == theirs
    assert [key for key, _ in theirs] == ["a", "folder/b", "./c", "v1.0/d", "a"]


def test_long_names_are_read_whole(tmp_path: Path) -> None:
    name = "/".join(["a-long-folder"] * 12)
    assert [i.key for i in index_shard(_tar(tmp_path / "x.tar", (f"{name}/key.txt",)))] == [
        f"{name}/key"
    ]


def test_nothing_of_a_plain_shard_is_held(tmp_path: Path) -> None:
    [item] = index_shard(_tar(tmp_path / "x.tar", ("a.txt",), size=10_000_000))
    member = item.members["txt"]
    assert sys.getsizeof(member) < 1000
    assert member.held is None
    assert member.read() == bytes(10_000_000)


def test_a_compressed_shard_is_read_too(tmp_path: Path) -> None:
    plain = _tar(tmp_path / "x.tar")
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert _contents(index_shard(packed)) == _contents(index_shard(plain))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("kept", [0, 100, 700, 1500, 5000, 5300])
def test_a_shard_that_is_cut_off_is_an_error(tmp_path: Path, kept: int, packed: bool) -> None:
    path = _tar(tmp_path / "x.tar")
    data = path.read_bytes()
    if packed:
        squeezed = gzip.compress(data)
        path.write_bytes(squeezed[: len(squeezed) * kept // 6000])
    else:
        path.write_bytes(data[:kept])
    with pytest.raises(ConfigError, match=r"x\.tar: damaged or unreadable .*; fetch it again"):
        index_shard(path)


def test_a_damaged_header_is_an_error(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar")
    data = bytearray(path.read_bytes())
    data[2048:2100] = b"\xff" * 52  # the header after "a.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="damaged or unreadable"):
        index_shard(path)


def test_a_shard_that_changes_under_way_is_an_error(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar")
    items = index_shard(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ConfigError, match="it ends early"):
        items[0].members["json"].read()
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        items[0].members["json"].read()


def test_two_members_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x.tar: a.TXT is in it twice; leave one of them out"):
        index_shard(_tar(tmp_path / "x.tar", ("a.txt", "a.TXT")))
