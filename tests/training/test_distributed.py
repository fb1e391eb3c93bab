"""Several processes train as one would that accumulates."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codi.config import ConfigError
from codi.training.distributed import ALONE, Processes, joined, speaks
from codi.training.loop import Run, RunSettings
from tests.training.one_of_two import STEPS, shared

MEASURED = ("mean", "scale", "shift")
"""What is measured at the end, on as many samples as a batch has."""


def _launch(*words: object) -> str:
    """Run `one_of_two` in two processes; return what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tests.training.one_of_two", *map(str, words)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _parameters(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder)}/{key}": value
        for file in sorted((folder / "model").rglob("*.safetensors"))
        for key, value in load_file(file).items()
        if key.rpartition(".")[2] not in MEASURED
    }


def test_what_is_done_together() -> None:
    _launch("check")


@pytest.mark.usefixtures("store")  # with the latents that both read
def test_a_stream_that_is_clean_in_one_of_them_is_told_by_the_other(cache: Path) -> None:
    _launch("listen", cache)


@pytest.mark.timeout(300)
def test_two_processes_are_one_that_accumulates_twice(tmp_path: Path, cache: Path) -> None:
    said = _launch("train", tmp_path / "two", cache, 0)
    assert said.count("both: done") == 1  # one of them speaks
    settings = RunSettings(tmp_path / "one", cache, log_every=1, sample_every=0)
    Run(shared(batch=1, accumulate=2), settings).run()
    two, one = _parameters(tmp_path / "two"), _parameters(tmp_path / "one")
    assert two.keys() == one.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name

    assert "both: stopped after step 3" in _launch("train", tmp_path / "again", cache, 3)
    assert not (tmp_path / "again/stages/both/done.json").exists()
    assert f"from step 3 of {STEPS}" in _launch("train", tmp_path / "again", cache, 0)
    again = _parameters(tmp_path / "again")
    for name, value in two.items():
        assert torch.equal(again[name], value), name


def test_batches_are_divided_and_numbered() -> None:
    assert ALONE.share(6) == 6
    assert [ALONE.part(i) for i in range(3)] == [0, 1, 2]
    three = [Processes(rank, 3) for rank in range(3)]
    assert [p.share(7) for p in three] == [3, 3, 3]
    assert sorted(p.part(i) for p in three for i in range(2)) == list(range(6))
    assert [p.leads for p in three] == [True, False, False]


def test_one_process_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as (processes, device):
        assert (processes, device) == (ALONE, "cpu")
        assert not torch.distributed.is_initialized()
    assert speaks()


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"process 1 .* has no GPU of its own: there are 1"):
        joined("cuda").__enter__()
    assert not speaks()
