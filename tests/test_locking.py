"""Laws of locks between processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codi.config import ConfigError
from codi.locking import locked

HOLDER = """
import sys, time
from pathlib import Path
from codi.locking import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "work" / "lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_that_another_process_holds_is_refused(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(ConfigError, match="work: another process is at work on it; wait until"):
        locked(tmp_path / "work" / "lock").__enter__()


def test_a_lock_whose_holder_was_killed_is_free(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    waited = []

    def progress(what: str, count: int) -> Iterator[int]:
        waited.append(what)
        holder.send_signal(signal.SIGKILL)
        yield from range(count)

    with locked(tmp_path / "work" / "lock", progress):
        assert waited == ["waiting for another process to make lock"]


def test_a_lock_is_free_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path / "lock"):
            raise KeyError
