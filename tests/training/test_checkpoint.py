"""Checkpoints: everything comes back, and a killed run always finds a whole one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from codi.config import ConfigError
from codi.training import checkpoint
from codi.training.checkpoint import load_checkpoint, save_checkpoint
from codi.training.ema import MovingAverage

Parts = tuple[dict[str, nn.Parameter], torch.optim.Optimizer, MovingAverage]


def _parts(seed: int = 0) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        name: nn.Parameter(torch.randn(3, 2, generator=generator)) for name in ("a", "b", "unused")
    }
    optimiser = torch.optim.AdamW(parameters.values(), lr=0.1, fused=True)
    return parameters, optimiser, MovingAverage(parameters, 0.9)


def _step(parts: Parts, step: int) -> None:
    parameters, optimiser, average = parts
    optimiser.zero_grad()
    (parameters["a"].square().sum() + parameters["b"].sin().sum()).backward()
    optimiser.step()
    average.update(parameters, step)


def _same(one: Parts, other: Parts) -> bool:
    return all(
        torch.equal(one[0][name], other[0][name])
        and torch.equal(one[2].values[name], other[2].values[name])
        for name in one[0]
    )


def test_going_on_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    straight, stopped, resumed = _parts(), _parts(), _parts(seed=1)
    for step in range(6):
        _step(straight, step)
    for step in range(3):
        _step(stopped, step)
    save_checkpoint(tmp_path / "checkpoint", *stopped, {"step": 3})
    assert load_checkpoint(tmp_path / "checkpoint", *resumed) == {"step": 3}
    for step in range(3, 6):
        _step(resumed, step)
    assert _same(straight, resumed)


def test_there_may_be_none_yet(tmp_path: Path) -> None:
    parts = _parts()
    assert load_checkpoint(tmp_path / "checkpoint", *parts) is None
    assert _same(parts, _parts())


@pytest.mark.parametrize("change", ["fewer", "other shape"])
def test_a_checkpoint_of_other_parameters_is_an_error(tmp_path: Path, change: str) -> None:
    save_checkpoint(tmp_path / "checkpoint", *_parts(), {"step": 1})
    parameters, optimiser, average = _parts()
    if change == "fewer":
        del parameters["b"]
    else:
        parameters["b"] = nn.Parameter(torch.zeros(7))
    with pytest.raises(ConfigError, match=r"of other parameters than .* now \(b\); undo"):
        load_checkpoint(tmp_path / "checkpoint", parameters, optimiser, average)


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", *_parts(), {"step": 1})
    file = tmp_path / "checkpoint" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=r"state\.safetensors: damaged or unreadable"):
        load_checkpoint(tmp_path / "checkpoint", *_parts())


@pytest.mark.parametrize("file", ["state.safetensors", "progress.json"])
@pytest.mark.parametrize("left", [b"", b"\0" * 100], ids=["nothing", "zeros"])
def test_what_a_power_cut_leaves_is_an_error(tmp_path: Path, file: str, left: bytes) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, *_parts(), {"step": 1})
    (folder / file).write_bytes(left)
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(folder, *_parts())
    said = str(caught.value)
    assert said.startswith(f"{folder / file}: damaged or unreadable")
    assert said.endswith(f"remove {folder} to start the stage anew")
    assert "\n" not in said


def test_files_are_as_any_new_one_and_reach_the_disk_before_they_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync, replace = os.fsync, Path.replace

    def noted(file: int) -> None:
        synced.append(file)
        sync(file)

    def synced_first(self: Path, target: Path) -> Path:
        assert len(synced) == 2 or target.name in ("state.safetensors", "progress.json")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", synced_first)
    save_checkpoint(tmp_path / "checkpoint", *_parts(), {"step": 1})
    (tmp_path / "any").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "checkpoint").iterdir()}
    assert modes == {(tmp_path / "any").stat().st_mode}


@pytest.mark.parametrize("renames", range(4))
def test_a_run_killed_while_saving_finds_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    parts = _parts()
    save_checkpoint(tmp_path / "checkpoint", *parts, {"step": 1})
    whole = Path.replace
    left = [None] * renames

    def killed(self: Path, target: Path) -> Path:
        if not left:
            raise SystemExit
        left.pop()
        return whole(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(SystemExit):
            save_checkpoint(tmp_path / "checkpoint", *_parts(seed=2), {"step": 2})
    for _ in range(2):
        found = _parts(seed=3)
        assert load_checkpoint(tmp_path / "checkpoint", *found) == {"step": 1}
        assert _same(found, parts)
    save_checkpoint(tmp_path / "checkpoint", *_parts(seed=2), {"step": 2})
    assert load_checkpoint(tmp_path / "checkpoint", *_parts()) == {"step": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_second_failure_keeps_the_only_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    parts = _parts()
    save_checkpoint(folder, *parts, {"step": 1})
    folder.replace(tmp_path / "checkpoint.old")  # killed between the two renames
    monkeypatch.setattr(checkpoint, "save_file", lambda *_: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        save_checkpoint(folder, *_parts(seed=2), {"step": 2})
    assert load_checkpoint(folder, *_parts()) == {"step": 1}
