"""`codi train`: plans that need no data, and runs that can be stopped."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from codi.build import load_config
from codi.cli import main, plan
from codi.cli.progress import Display
from codi.cli.train import ShownStages, workers_of
from codi.config import ConfigError, to_toml
from codi.folders import PRESETS
from codi.training.loop import RunSettings
from codi.training.recipe import Objective, Recipe, Stage, load_recipe
from codi.weights import part_files

SMALL = """
name = "small"
model = "tiny"
overrides = ["codecs.text.width=40"]

[data.bounce]
kind = "world"
world = "bounce"
clips = 12

[data.absent]
kind = "shards"
files = ["nowhere-*.tar"]
optional = true

[[stage]]
name = "words"
steps = 6
batch = 4
learning_rate = 1e-3
train = ["codecs.text.*"]

[[stage.objectives]]
task = "reconstruct"
settings = { modality = "text", captions = ["video"] }
data = { bounce = 0.9, absent = 0.1 }

[[stage]]
name = "words-again"
steps = 3
batch = 4
accumulate = 2
learning_rate = 1e-3

[[stage.objectives]]
task = "reconstruct"
settings = { modality = "text", captions = ["text"] }
data = { bounce = 1.0 }
"""


STAGE = Stage("words", (Objective("reconstruct", {"bounce": 1.0}),), 1, 1, 1e-3)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_dry_run_shows_every_stage_and_trains_nothing(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_cwd: Path
) -> None:
    assert main(["train", str(recipe), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    model = load_config("tiny", ["codecs.text.width=40"])
    parameters = sum(p.numel() for p in model.part("codecs", "text").build().parameters())
    for word in ("words-again", "reconstruct text", "4 x 2", f"{parameters:,}", "codecs.text"):
        assert word in printed
    assert "data bounce: there" in printed
    assert "data absent: not there; optional" in printed
    assert [path.name for path in tmp_cwd.iterdir()] == ["small.toml"]


def test_dry_run_names_stages_that_have_no_data(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(SMALL.replace("data = { bounce = 1.0 }", "data = { absent = 1.0 }"))
    assert main(["train", str(recipe), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "without any of their data, these cannot run: words-again\n" in printed
    assert main(["train", str(recipe), "--dry-run", "--only", "words"]) == 0
    assert "cannot run" not in capsys.readouterr().out


def test_a_folder_of_data_that_is_not_there_is_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for words in (["--dry-run"], ["--out", str(tmp_path / "run")]):
        assert main(["train", str(recipe), "--data", "/nowhere", *words]) == 2
        assert "--data /nowhere: there is no such folder" in capsys.readouterr().err


def test_off_a_terminal_progress_is_told_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        shown = ShownStages(display, every_s=0.0)
        for step in shown.steps(dataclasses.replace(STAGE, steps=4), range(1, 4)):
            norms = {"gradient": 2.5, "gradient/a": 2.5, "update/a": 3.0, "update/b": 4.0}
            shown.report({"loss/words": step / 8, **norms})
    lines = [
        line.rsplit(", ", 2) for line in capsys.readouterr().err.splitlines() if "step" in line
    ]
    assert [line[0] for line in lines] == ["words: step 2 of 4", "words: step 3 of 4"]
    assert [line[1].endswith(" left") for line in lines] == [True, True]
    told = "gradient 2.5 moved 5"
    assert [line[2] for line in lines] == [f"words 0.125 {told}", f"words 0.25 {told}"]


RECIPES = sorted(path.stem for path in PRESETS.glob("recipe-*.toml"))
RECIPES.remove("recipe-tiny")  # `codi presets --describe` shows it, in another test


@pytest.mark.timeout(300)  # the recipe of the paper takes long where the machine is busy
@pytest.mark.parametrize("name", RECIPES)
def test_dry_run_takes_any_shipped_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", name, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for stage in load_recipe(name).stage:
        assert stage.name in printed


def test_dry_run_of_some_stages_with_other_settings(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dry-run", "--only", "words", "--set", "stage.0.steps=1234"]
    assert main(["train", str(recipe), *words]) == 0
    printed = capsys.readouterr().out
    assert "1,234" in printed
    assert "words-again" not in printed


def test_only_may_be_given_twice(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--only", "words", "--only", "words-again"]
    assert main(["train", str(recipe), "--dry-run", *words]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "reconstruct" in line]
    assert len(rows) == 2


@pytest.mark.parametrize(("word", "dtype"), [("--bf16", "bfloat16"), ("--no-bf16", "float32")])
def test_time_is_of_the_machine_and_the_precision_that_train(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, word: str, dtype: str
) -> None:
    found = []

    def peak(device: str, *, dtype: torch.dtype) -> float:
        found.append((device, str(dtype).removeprefix("torch.")))
        return 1e12

    monkeypatch.setattr("codi.cli.train.resolve_device", lambda _name: "cuda:1")
    monkeypatch.setattr(plan, "matrix_peak", peak)
    assert main(["train", str(recipe), "--dry-run", word]) == 0
    assert found == [("cuda:1", dtype)]


def test_what_is_measured_is_run_as_training_is(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: list[RunSettings] = []

    class Noted:
        def __init__(self, _recipe: Recipe, given: RunSettings, **_hooks: Any) -> None:
            settings.append(given)

        def run(self, _only: list[str]) -> None: ...

    monkeypatch.setattr("codi.cli.train.resolve_device", lambda _name: "cuda")
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(plan, "matrix_peak", lambda *_, **__: 1e12)
    monkeypatch.setattr(plan, "Run", Noted)
    words = ["train", str(recipe), "--dry-run", "--estimate", "--quiet", "--bf16"]
    for more in ([], ["--no-graphs", "--workers", "2"]):
        assert main([*words, *more]) == 0
    assert [(s.device, s.bfloat16, s.graphs, s.workers) for s in settings] == [
        ("cuda", True, True, 3),
        ("cuda", True, False, 2),
    ]


def test_estimate_measures_a_few_steps(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_cwd: Path
) -> None:
    assert main(["train", str(recipe), "--dry-run", "--estimate", "--quiet"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "reconstruct" in line]
    assert rows
    assert not any("~" in row for row in rows)
    assert [path.name for path in tmp_cwd.iterdir()] == ["small.toml"]


def test_a_run_leaves_model_logs_and_recipe_and_is_not_repeated(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["train", str(recipe), "--out", str(out), "--only", "words", "--sample-every", "0"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "data source 'absent' is not there" in said.err
    assert f"the model is in {out / 'model'}" in " ".join(said.err.split())
    assert part_files(out / "model", "codecs.text")
    assert list((out / "logs" / "words").glob("events*"))
    assert to_toml(load_recipe(recipe)) == (out / "recipe.toml").read_text()
    assert json.loads((out / "stages" / "words" / "done.json").read_text())["steps"] == 6
    assert not (out / "stages" / "words-again").exists()
    assert main(words) == 0
    assert "words: done already" in capsys.readouterr().err


def test_a_run_that_is_stopped_goes_on_where_it_was(
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["train", str(recipe), "--out", str(tmp_path / "run"), "--only", "words"]
    with monkeypatch.context() as context:
        # Ctrl-C at the first report, which is in the middle of the first step.
        context.setattr(ShownStages, "report", lambda *_: signal.raise_signal(signal.SIGINT))
        assert main(words) == 130
    assert "run the same command to go on" in capsys.readouterr().err
    assert main(words) == 0
    assert "words: done in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--dry-run", "--only", "word"], ["unknown stage 'word'", "did you mean 'words'"]),
        (["--dry-run", "--set", "stage.0.stepz=1"], ["stepz", "did you mean 'stage[0].steps'"]),
        (["--dry-run", "--set", "steps"], ["expected key=value"]),
        (["--estimate", "--out", "x"], ["--estimate belongs to --dry-run"]),
        (["--out", "x", "--set", 'stage.0.train=["codec.text.*"]'], ["no parameter matches"]),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    parts: list[str],
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_cwd: Path,
) -> None:
    assert main(["train", str(recipe), "--quiet", *words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("asked", "device", "cores", "found"),
    [(None, "cpu", 16, 0), (None, "cuda", 16, 8), (None, "cuda", 4, 3), (3, "cpu", 2, 3)],
)
def test_a_gpu_is_fed_by_other_processes(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, device: str, cores: int, found: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert workers_of(asked, device) == found


def test_workers_need_a_platform_that_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert workers_of(None, "cuda") == 0
    with pytest.raises(ConfigError, match="cannot fork processes; give 0"):
        workers_of(2, "cuda")
