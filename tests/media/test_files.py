from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codi.media import (
    Audio,
    MediaError,
    Video,
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    load_audio,
    load_image,
    load_text,
    load_video,
    save_audio,
    save_image,
    save_text,
    save_video,
)

Load = Callable[[Path], Any]
LOADERS: dict[str, Load] = {
    "image": lambda path: load_image(path, size_px=64),
    "video": lambda path: load_video(path, frames=16, fps=8, size_px=64),
    "audio": lambda path: load_audio(path, sample_rate_hz=16000, duration_s=2.0),
    "text": load_text,
}
loaders = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)

SAVERS: dict[str, tuple[str, Load]] = {
    "image": (
        "o.png",
        lambda path: save_image(path, np.eye(64, dtype=np.uint8)[..., None].repeat(3, 2)),
    ),
    "video": ("o.mp4", lambda path: save_video(path, Video(np.zeros((4, 64, 64, 3), np.uint8), 8))),
    "audio": ("o.wav", lambda path: save_audio(path, Audio(np.zeros(16000, np.float32), 16000))),
    "text": ("o.txt", lambda path: save_text(path, "word " * 2000)),
}
savers = pytest.mark.parametrize(("name", "save"), SAVERS.values(), ids=SAVERS)


@loaders
def test_what_is_no_file(tmp_path: Path, load: Load) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path, words in (
        (tmp_path / "none.mp4", r"none\.mp4: no such file; check the path"),
        (tmp_path, "is a folder; name a file inside it"),
        (tmp_path / "empty", r"empty: is empty \(0 bytes\); copy or save it again"),
        (tmp_path / "pipe", "is a pipe or a device"),
        (tmp_path / "circle", "is a link that leads back to itself"),
        (tmp_path / "empty" / "a", "a part of the path is not a folder"),
        (tmp_path / ("a" * 300), "the name is too long"),
        (Path("a\0b"), "a.x00b: is not a possible file name"),
    ):
        with pytest.raises(MediaError, match=words):
            load(path)


@loaders
def test_no_permission_to_read(tmp_path: Path, load: Load, request: pytest.FixtureRequest) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 100)
    (tmp_path / "secret").chmod(0)
    request.getfixturevalue("ordinary_user")
    with pytest.raises(MediaError, match="secret: no permission to read it; change its"):
        load(tmp_path / "secret")


@contextmanager
def small_files_only() -> Iterator[None]:
    """Let the system refuse every file over 100 bytes, as a full disk refuses the next byte.

    Within a test alone: pytest's own output may go to a file that is longer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@savers
def test_what_does_not_fit_leaves_nothing(tmp_path: Path, name: str, save: Load) -> None:
    old = tmp_path / name
    old.write_bytes(b"old")
    refused = pytest.raises(MediaError, match=rf"{name}: cannot be written: .* larger than this")
    with refused, small_files_only():
        save(old)
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


@savers
def test_folders_that_cannot_be_written_to(
    tmp_path: Path, name: str, save: Load, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(MediaError, match=r"there is no folder .*; create the folder first"):
        save(tmp_path / "missing" / name)
    (tmp_path / f"dir{name}").mkdir()
    with pytest.raises(MediaError, match="is a folder; add a file name to it"):
        save(tmp_path / f"dir{name}")
    (tmp_path / "file").touch()
    with pytest.raises(MediaError, match="is not a folder; choose another folder"):
        save(tmp_path / "file" / name)
    with pytest.raises(MediaError, match="is not a possible file name"):
        save(tmp_path / f"a\0{name}")
    request.getfixturevalue("ordinary_user")
    with pytest.raises(MediaError, match=r"no permission to write in .*; choose another folder"):
        save(tmp_path / name)


@savers
def test_saving_replaces_and_leaves_nothing_else(tmp_path: Path, name: str, save: Load) -> None:
    (tmp_path / name).write_bytes(b"old")
    save(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 100
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_interrupted_writing_keeps_the_old_file(tmp_path: Path, error: type[Exception]) -> None:
    target = tmp_path / "weights.bin"
    atomic_write_bytes(target, b"old")

    def interrupted() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        interrupted()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_new_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("whole", encoding="utf-8")
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "whole"


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "latest.txt").symlink_to(tmp_path / "real" / "run.txt")
    atomic_write_text(tmp_path / "latest.txt", "text")
    assert (tmp_path / "latest.txt").is_symlink()
    assert (tmp_path / "real" / "run.txt").read_bytes() == b"text"


def test_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    atomic_write_bytes(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_put_in_its_place_has_ordinary_permissions(tmp_path: Path) -> None:
    """Some libraries write beside the file that they are given, and move that there."""
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "atomic") as temporary:
        (tmp_path / "other").touch(0o600)
        (tmp_path / "other").replace(temporary)
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_longest_file_name_works(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / ("a" * 255), b"x")
    with pytest.raises(MediaError, match="the name is too long for this file system; choose a"):
        atomic_write_bytes(tmp_path / ("a" * 256), b"x")


def test_strange_names_stay_on_one_line(tmp_path: Path) -> None:
    for name in ("line\nbreak.png", "bytes\udcff.png", "escape\x1b[31m.png"):
        with pytest.raises(MediaError, match="no such file") as caught:
            load_image(tmp_path / name, size_px=8)
        message = str(caught.value)
        assert message.isprintable()
        message.encode("utf-8")


def test_names_that_look_like_addresses_are_files(tmp_cwd: Path, make: Any) -> None:
    make.clip(Path("clip.mp4"), make.ramp(16))
    for name in ("file:clip.mp4", "concat:clip.mp4|clip.mp4", "-i", "http:x.mp4"):
        with pytest.raises(MediaError, match="no such file"):
            LOADERS["video"](Path(name))
        Path("clip.mp4").rename(name)
        assert LOADERS["video"](Path(name))[1] == []
        Path(name).rename("clip.mp4")


def test_playlists_open_no_other_file(tmp_path: Path, make: Any) -> None:
    clip = make.clip(tmp_path / "clip.mp4", make.ramp(16))
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{clip}\n#EXT-X-ENDLIST\n",
        "a.mp4": f"ffconcat version 1.0\nfile {clip}\n",
        "a.mpd": f'<?xml version="1.0"?><MPD><BaseURL>file://{clip}</BaseURL></MPD>',
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        for kind in ("video", "audio"):
            with pytest.raises(MediaError, match="is a text file"):
                LOADERS[kind](tmp_path / name)


def test_import_is_light() -> None:
    heavy = "{'torch', 'av', 'soundfile', 'soxr', 'PIL', 'scipy'}"
    code = f"import sys, codi.media; sys.exit(bool({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == 0
