"""`codi bench` and `codi presets`: counts that follow from the shapes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from codi.benchmarks import machine
from codi.build import PRESETS, Model, load_config, parameter_shares
from codi.cli import bench, main
from codi.cli.bench import _peak_mib
from tests.small import PRESET


def test_memory_is_measured() -> None:
    assert 20 < _peak_mib() < 1e6


def test_flops_prints_all_streams(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "flops", "--model", str(model_folder)]) == 0
    printed = capsys.readouterr().out
    assert "text + image + video + audio" in printed
    assert "environment parts:" in printed
    assert "GFLOP/s" in printed


def test_unet_prints_a_table_or_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "unet", "--preset", str(PRESET), "--repeat", "1", "--device", "cpu"]
    assert main([*words, "--stream", "video", "audio", "--frames", "2"]) == 0
    printed = capsys.readouterr().out
    assert "video + audio" in printed
    assert "of the parts alone" in printed
    assert "GB/s" in printed
    assert main([*words, "--stream", "text", "--json", "--plain"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert [e["name"] for e in numbers["evaluations"]] == ["text"]
    assert numbers["peak"] > 0
    assert main([*words, "--stream", "text", "--compile", "--prepared"]) == 2
    assert "take no prepared prompts" in capsys.readouterr().err


def test_unet_says_which_streams_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "unet", "--preset", str(PRESET), "--stream", "vidio"]) == 2
    assert "did you mean 'video'" in capsys.readouterr().err
    assert main(["bench", "unet", "--preset", "stable-diffusion", "--stream", "text"]) == 2
    said = capsys.readouterr().err
    assert "unknown stream of stable-diffusion: 'text'" in said
    assert "image" in said
    assert said.count("\n") == 1


def test_generate_compares_joint_requests_with_their_parts(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(model_folder), "--steps", "1", "--repeat", "1", "--no-cold"]
    assert main(["bench", "generate", *words]) == 0
    printed = capsys.readouterr().out
    assert "video + audio: " in printed
    assert "of the sum of its parts alone" in printed
    assert "MiB" in printed


def test_a_cold_process_loads_the_plugins(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin, seen = tmp_path / "mine.py", tmp_path / "seen"
    plugin.write_text(f"with open({str(seen)!r}, 'a') as file:\n    file.write('x')\n")
    cold, left = bench._cold, [1]

    def once(arguments: argparse.Namespace, to: Sequence[str]) -> tuple[str, str]:
        return cold(arguments, to) if left and left.pop() else ("", "")

    monkeypatch.setattr(bench, "_cold", once)
    monkeypatch.setattr(machine, "in_turns", lambda works, *_: {to: [1.0] for to in works})
    words = ["bench", "generate", "--model", str(model_folder), "--steps", "1", "--device", "cpu"]
    assert main(["--plugin", str(plugin), *words]) == 0
    assert seen.read_text() == "xx"  # this process and the cold one
    assert "MiB" in capsys.readouterr().out


def test_presets_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    rows = [row.split("│")[1:-1] for row in capsys.readouterr().out.splitlines() if "│" in row]
    listed = {name.strip(): (kind.strip(), about) for name, kind, about in rows}
    for path in PRESETS.glob("*.toml"):
        kind, about = listed[path.stem]
        assert kind.startswith("recipe" if path.stem.startswith("recipe-") else "model with")
        assert about.split()[0] == path.read_text().split()[1]  # the comment it begins with


def test_a_model_is_described_by_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--describe", "tiny"]) == 0
    printed = capsys.readouterr().out
    model = Model(load_config("tiny"))
    for part in model.config.parts():
        role, name = part.split(".", 1)
        assert part in printed
        assert f"{sum(p.numel() for p in model.role(role)[name].parameters()):,}" in printed
    assert f"{sum(p.numel() for p in model.parameters()):,}" in printed
    for name, settings in model.config.modalities.items():
        assert f"{name}: latent {' x '.join(map(str, settings.latent))}" in printed


def test_a_description_breaks_out_what_a_diffuser_has_beside_an_image_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["presets", "--describe", "tiny"]) == 0
    printed = capsys.readouterr().out
    for share, count in parameter_shares(load_config("tiny"))["diffusers.vision"].items():
        assert share in printed
        assert f"{count:,}" in printed


def test_a_recipe_is_described_by_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--describe", "recipe-tiny"]) == 0
    assert "joint-audio-video" in capsys.readouterr().out


def test_the_peak_of_a_program_is_not_that_of_what_started_it() -> None:
    held = np.ones(300 * 2**20, dtype=np.uint8)
    code = "from codi.cli.bench import _peak_mib; print(_peak_mib())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(told.stdout) < 150 < held.nbytes / 2**20
