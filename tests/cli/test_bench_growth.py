"""`codi bench growth`: a further modality costs what the ones before it cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from codi.benchmarks.networks import model_of_shapes
from codi.cli import main
from codi.cli.bench_growth import _table, growth
from codi.config import ConfigError
from codi.training.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[2]
ORDER = ["text", "image", "audio", "video"]


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave operations out, which take longest to count."""
    monkeypatch.setattr("codi.cli.cost.counted", lambda _: 10**9)


def test_pairs_grow_by_two_a_modality_and_parameters_add_up_to_the_model() -> None:
    recipe = load_recipe("recipe-tiny")
    grown = growth([recipe], ORDER)
    assert [g.modality for g in grown] == ORDER
    assert [g.pairs for g in grown] == [0, 1, 1, 2]
    assert sum(g.stages for g in grown) == len(recipe.stage)
    assert [g.objectives for g in grown] == [2, 4, 5, 3]  # a codec, an alignment, a diffuser ...
    model = model_of_shapes(recipe.model_config())
    assert sum(g.parameters for g in grown) == sum(p.numel() for p in model.parameters())
    assert all(g.flops > 0 for g in grown)


@pytest.mark.usefixtures("uncounted")
def test_the_table_is_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot, page = tmp_path / "growth.svg", tmp_path / "results.md"
    words = ["--order", *ORDER, "--plot", str(plot), "--results", str(page)]
    assert main(["bench", "growth", "recipe-tiny", *words]) == 0
    assert "video adds 4 stages, 3 objectives, 2 pairs" in capsys.readouterr().out
    assert "all pairs" in plot.read_text()
    assert "| 2 | image | 6 | 6 | 1 | 1 |" in page.read_text()
    assert (tmp_path / "pictures" / "growth.svg").read_text() == plot.read_text()


@pytest.mark.parametrize(
    ("order", "message"),
    [(["text", "imgae"], "did you mean 'image'"), (["text", "image"], "name each of text, image")],
)
def test_an_order_names_every_modality(order: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        growth([load_recipe("recipe-tiny")], order)


def test_a_fifth_modality_comes_last() -> None:
    words = ["bench", "growth", "--plugin", "examples/depth.py"]

    def told(*recipes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "codi", *words, *recipes]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    wrong = told("examples/depth.toml", "recipe-tiny")
    assert wrong.returncode == 2
    assert "name the recipe of the largest model last" in wrong.stderr
    assert (
        "depth adds 4 stages, 4 objectives, 2 pairs"
        in told("recipe-tiny", "examples/depth.toml").stdout
    )


@pytest.mark.usefixtures("uncounted")
def test_seconds_of_steps_add_up_to_hours() -> None:
    recipe = load_recipe("recipe-tiny")
    grown = growth([recipe], ORDER, [{stage.name: 0.5 for stage in recipe.stage}])
    assert sum(g.seconds or 0.0 for g in grown) == 0.5 * sum(s.steps for s in recipe.stage)
    head, *rows = _table(grown)
    assert head[-1] == "hours"
    assert float(rows[-1][-1]) == pytest.approx(
        sum(g.seconds or 0.0 for g in grown) / 3600, abs=0.01
    )


@pytest.mark.usefixtures("uncounted")
def test_measured_hours_stand_in_the_page_with_the_words_that_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def times(recipe: Recipe, *_: object) -> dict[str, float]:
        return {stage.name: 1.0 for stage in recipe.stage}

    monkeypatch.setattr("codi.cli.plan.measured", times)
    page = tmp_path / "results.md"
    words = ["bench", "growth", "recipe-tiny", "--estimate", "--results", str(page)]
    assert main(words) == 0
    assert "hours: float32, cpu" in capsys.readouterr().out
    assert "`codi bench growth recipe-tiny --estimate`" in page.read_text()
    drawn = (tmp_path / "pictures" / "growth.svg").read_text()
    assert all(f">{what}<" in drawn for what in ("stages", "million parameters", "hours"))

    monkeypatch.setattr("codi.cli.plan.measured", lambda *_: {})
    assert main(words) == 2
    assert "stage codec-image cannot be measured" in capsys.readouterr().err


def test_a_type_for_steps_needs_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "growth", "recipe-tiny", "--bf16"]) == 2
    assert "--bf16 belongs to --estimate" in capsys.readouterr().err
