"""Laws of the folder that `codi generate` writes: one run whole, whatever stops the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from codi.cli import outputs
from codi.cli.outputs import OutputFolder
from codi.config import ConfigError
from codi.modalities.base import modality

MEDIA = {"text": modality("text").media_class()()}


def written(folder: OutputFolder, words: Sequence[str]) -> dict[str, Any]:
    """Write a sample for each word and return their manifest."""
    files = [folder.write_sample(n, {"text": word}, MEDIA) for n, word in enumerate(words)]
    return {"samples": [{"files": names} for names in files], "left_over": folder.left_over}


def run(path: Path, words: Sequence[str], reads: Sequence[Path] = ()) -> list[str]:
    """Make a whole run into a folder and return the names of what it removed."""
    with OutputFolder(path) as folder:
        folder.reserve(range(len(words)), ["text"], reads)
        return folder.publish(written(folder, words))


def words_in(path: Path) -> dict[str, str]:
    return {p.name: p.read_text().strip() for p in sorted(path.iterdir()) if p.suffix == ".txt"}


def names_in(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from tests.cli.test_outputs import OutputFolder, written

folder = OutputFolder(Path(sys.argv[1]))
folder.reserve(range(2), ["text"], [])
manifest = written(folder, ["new 0", "new 1"])
moves, move = iter(range(int(sys.argv[2]))), Path.replace

def moved(*paths):
    if next(moves, None) is None:
        os.kill(os.getpid(), 9)
    return move(*paths)

Path.replace = moved
folder.publish(manifest)
"""


def kill_a_run(path: Path, moves: int) -> None:
    """Let a process make two samples in `path`, and be killed after `moves` moves to their place.

    The first is that of the manifest into the hidden folder, the second makes that final, then come
    the samples, and the manifest as the fifth.
    """
    root = Path(__file__).parents[2]
    words = [str(path), str(moves), str(root), str(root / "src")]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_run_leaves_its_samples_and_its_manifest_alone(tmp_path: Path) -> None:
    assert run(tmp_path / "deep" / "out", ["a", "b"]) == []
    out = tmp_path / "deep" / "out"
    assert names_in(out) == {"000-text.txt", "001-text.txt", "manifest.json"}
    assert (out / "000-text.txt").stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert run(out, ["c"]) == ["001-text.txt"]
    assert words_in(out) == {"000-text.txt": "c"}


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_not_published_leaves_nothing(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "deep" / "out") as folder:
        written(folder, ["a"])
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("moves", [0, 1])
def test_a_killed_run_leaves_the_earlier_one_whole_and_the_next_one_clears_it(
    moves: int, tmp_path: Path
) -> None:
    run(tmp_path, ["old 0", "old 1", "old 2"])
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    kill_a_run(tmp_path, moves)
    hidden = names_in(tmp_path) - before.keys()
    assert len(hidden) == 1
    assert hidden.pop().startswith(".")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert run(tmp_path, ["newer"]) == ["001-text.txt", "002-text.txt"]
    assert names_in(tmp_path) == {"000-text.txt", "manifest.json"}


@pytest.mark.parametrize("moves", [2, 3, 4])
def test_a_run_that_is_killed_while_it_takes_its_place_is_finished_by_the_next(
    moves: int, tmp_path: Path
) -> None:
    run(tmp_path, ["old 0", "old 1", "old 2"])
    kill_a_run(tmp_path, moves)
    assert names_in(tmp_path) != {"000-text.txt", "001-text.txt", "manifest.json"}
    with OutputFolder(tmp_path) as folder:
        folder.reserve(range(2), ["text"], [])
    assert words_in(tmp_path) == {"000-text.txt": "new 0", "001-text.txt": "new 1"}
    assert names_in(tmp_path) == {"000-text.txt", "001-text.txt", "manifest.json"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_a_run_has_taken_its_place(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, ["old 0", "old 1"])
    bring = outputs._bring

    def interrupted(whole: Path, path: Path) -> list[str]:
        signal.raise_signal(number)
        return bring(whole, path)

    folder = OutputFolder(tmp_path)
    monkeypatch.setattr(outputs, "_bring", interrupted)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with folder, pytest.raises(KeyboardInterrupt):
            folder.publish(written(folder, ["new"]))
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert names_in(tmp_path) == {"000-text.txt", "manifest.json"}
    assert words_in(tmp_path) == {"000-text.txt": "new"}


def test_a_manifest_that_cannot_be_written_leaves_the_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, ["old"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with OutputFolder(tmp_path) as folder:
        manifest = written(folder, ["new", "new"])
        monkeypatch.setattr(outputs, "atomic_write_text", full)
        with pytest.raises(OSError, match="No space left"):
            folder.publish(manifest)
    assert words_in(tmp_path) == {"000-text.txt": "old"}
    assert names_in(tmp_path) == {"000-text.txt", "manifest.json"}


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as first:
        manifest = written(first, ["a"])
        with pytest.raises(ConfigError, match="out: another process is writing to it; wait until"):
            OutputFolder(tmp_path / "out")
        first.publish(manifest)
    assert words_in(tmp_path / "out") == {"000-text.txt": "a"}
    assert run(tmp_path / "out", ["b"]) == []


def test_files_that_no_manifest_lists_stay(tmp_path: Path) -> None:
    run(tmp_path, ["a"])
    (tmp_path / "001-text.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"001-text\.txt: is there, and no manifest says"):
        run(tmp_path, ["b", "b"])
    assert run(tmp_path, ["b"]) == []
    assert words_in(tmp_path) == {"000-text.txt": "b", "001-text.txt": "mine"}


def test_what_a_run_read_stays_listed_and_may_be_replaced_by_a_later_one(tmp_path: Path) -> None:
    run(tmp_path, ["a", "b"])
    for _ in range(2):  # the second run reads it no more, and yet does not remove it
        run(tmp_path, ["c"], [tmp_path / "001-text.txt"])
        table = json.loads((tmp_path / "manifest.json").read_text())
        assert table["left_over"] == ["001-text.txt"]
        assert run(tmp_path, ["c"]) == []
        assert words_in(tmp_path) == {"000-text.txt": "c", "001-text.txt": "b"}
    assert run(tmp_path, ["d", "e"]) == []
    assert words_in(tmp_path) == {"000-text.txt": "d", "001-text.txt": "e"}
