"""`codi bench memory`: what the operating system counts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from codi.cli import bench_memory, main
from codi.cli.bench_memory import Peak, memory_of, watched
from codi.config import ConfigError
from tests.small import PRESET

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_TAKE = "x = b'1' * (200 * 2**20); import time; time.sleep(0.2)"


def test_the_peak_of_a_process_is_seen() -> None:
    peak = watched([sys.executable, "-c", _TAKE])
    assert 200 * 2**20 < peak.anonymous < 300 * 2**20
    assert peak.taken_s > 0.2


def test_what_a_failing_process_said_is_the_error() -> None:
    with pytest.raises(ConfigError, match="it was me"):
        watched([sys.executable, "-c", "import sys; sys.exit('it was me')"])


def test_memory_of_this_process_and_of_none() -> None:
    assert memory_of(os.getpid())["RssAnon"] > 2**20
    assert memory_of(2**30) == {}


def test_every_request_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []

    def instead(words: list[str]) -> Peak:
        seen.append(words)
        return Peak(3 * 2**30, 2**29, 1.0)

    monkeypatch.setattr(bench_memory, "watched", instead)
    words = ["--preset", str(PRESET), "--folder", str(tmp_path), "--quiet", "--dtype", "fp16"]
    assert main(["bench", "memory", *words, "--to", "audio", "--to", "text", "audio"]) == 0
    printed = capsys.readouterr().out
    assert "text + audio" in printed
    assert "3.00 GiB" in printed
    assert [words[words.index("--dtype") + 1] for words in seen] == ["fp16", "fp16"]
    assert (tmp_path / "audio" / "diffuser.safetensors").is_file()
    assert not (tmp_path / "vision").exists()  # nobody asked
