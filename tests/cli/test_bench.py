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

from codi.benchmarks import requests
from codi.build import Model, load_config, share_counts
from codi.cli import bench_generate, main
from codi.cli.bench_generate import _peak_mib
from codi.cli.cost import Costs
from codi.training.recipe import load_recipe
from codi.weights import save_model
from tests.small import PRESET, small_model, speaking


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    save_model(speaking(small_model()), folder)
    return folder


def test_memory_is_measured() -> None:
    assert 20 < _peak_mib() < 1e6


def test_flops_prints_all_streams(small_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "flops", "--model", str(small_folder)]) == 0
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


def test_unet_says_which_streams_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "unet", "--preset", str(PRESET), "--stream", "vidio"]) == 2
    assert "did you mean 'video'" in capsys.readouterr().err
    assert main(["bench", "unet", "--preset", "stable-diffusion", "--stream", "text"]) == 2
    said = capsys.readouterr().err
    assert "unknown stream of stable-diffusion: 'text'" in said
    assert "image" in said
    assert said.count("\n") == 1


def test_generate_compares_joint_requests_with_their_parts(
    small_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(requests, "performed", lambda _: 1)  # counted in the test below
    words = ["--model", str(small_folder), "--steps", "1", "--repeat", "1", "--no-cold"]
    assert main(["bench", "generate", *words]) == 0
    printed = capsys.readouterr().out
    assert "video + audio: " in printed
    assert "of the sum of its parts alone" in printed
    assert "MiB" in printed
    for head in ("GFLOP ", "GFLOP/s", "of peak"):
        assert head in printed
    assert "matrix products here: " in printed


def test_generate_gives_its_numbers_to_programs(
    small_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(small_folder), "--steps", "2", "--repeat", "1", "--no-cold", "--json"]
    assert main(["bench", "generate", *words]) == 0
    numbers = json.loads(capsys.readouterr().out)
    rows = {tuple(row["to"]): row for row in numbers["requests"]}
    for to, row in rows.items():
        assert row["flops_per_s"] == row["flops"] / row["seconds"]
        assert row["of_peak"] == row["flops_per_s"] / numbers["peak"]
        assert 0 < row["step_s"] < row["seconds"]
        assert (row["of_parts"] is None) is (len(to) == 1)
        assert row["cold"] is None
    parts = rows[("video",)]["flops"] + rows[("audio",)]["flops"]
    assert parts < rows[("video", "audio")]["flops"] < 1.5 * parts


def test_a_cold_process_loads_the_plugins(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin, seen = tmp_path / "mine.py", tmp_path / "seen"
    plugin.write_text(f"with open({str(seen)!r}, 'a') as file:\n    file.write('x')\n")
    cold, found = bench_generate._cold, list[bench_generate.Cold]()

    def once(arguments: argparse.Namespace, to: Sequence[str]) -> bench_generate.Cold:
        if not found:
            found.append(cold(arguments, to))
        return found[0]

    monkeypatch.setattr(bench_generate, "_cold", once)
    monkeypatch.setattr(requests, "in_turns", lambda works, *_: {to: [1.0] for to in works})
    monkeypatch.setattr(requests, "performed", lambda _: 1)
    words = ["bench", "generate", "--model", str(model_folder), "--steps", "1", "--device", "cpu"]
    assert main(["--plugin", str(plugin), *words]) == 0
    assert seen.read_text() == "xx"  # this process and the cold one
    assert f"{found[0].peak_mib:.0f} MiB" in capsys.readouterr().out


RECIPE = """
name = "small"
model = "tiny"
overrides = ["codecs.image.channels=16"]

[data.bounce]
kind = "world"
world = "bounce"
clips = 12
"""
STAGE = """
[[stage]]
name = "{name}"
steps = 6
batch = 2
accumulate = {accumulate}
learning_rate = 1e-3

[[stage.objectives]]
task = "reconstruct"
settings = {{ modality = "image" }}
data = {{ bounce = 1.0 }}
"""


def test_train_counts_the_operations_of_its_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.toml"
    stages = [STAGE.format(name=f"pictures-{n}", accumulate=n) for n in (1, 2)]
    file.write_text("\n".join([RECIPE, *stages]))
    assert main(["bench", "train", str(file), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    once, twice = numbers["stages"]
    assert [once["name"], twice["name"]] == ["pictures-1", "pictures-2"]
    for row in (once, twice):
        assert row["flops_per_s"] == row["flops"] / row["seconds"]
        assert row["of_peak"] == row["flops_per_s"] / numbers["peak"]
    assert twice["flops"] == 2 * once["flops"]
    forwards = Costs(load_recipe(file).model_config())._part_flops("codecs", "image")
    # Twice backwards, but to the weights alone where a picture comes in.
    assert 2.7 * forwards < once["flops"] / 2 < 3 * forwards
    file.write_text(RECIPE + stages[0])
    assert main(["bench", "train", str(file)]) == 0
    printed = capsys.readouterr().out
    for head in ("ms a step", "GFLOP ", "GFLOP/s", "of peak", "matrix products here: "):
        assert head in printed


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
    for share, count in share_counts(load_config("tiny"))["diffusers.vision"].items():
        assert share.rpartition("/")[2] in printed
        assert f"{count:,}" in printed


def test_a_recipe_is_described_by_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--describe", "recipe-tiny"]) == 0
    assert "joint-audio-video" in capsys.readouterr().out


def test_the_peak_of_a_program_is_not_that_of_what_started_it() -> None:
    held = np.ones(300 * 2**20, dtype=np.uint8)
    code = "from codi.cli.bench_generate import _peak_mib; print(_peak_mib())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(told.stdout) < 150 < held.nbytes / 2**20
