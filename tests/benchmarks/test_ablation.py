"""Plans of arms: all are sound, and a small one is trained, measured and told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from codi.benchmarks.ablation import load_ablation, rows_of, shipped_ablations
from codi.cli import main
from codi.config import ConfigError, load_toml
from codi.evaluation.statistics import paired_interval
from codi.training.loop import Run, RunSettings
from codi.training.parameters import fresh_model
from codi.weights import load_model, save_model
from tests.small import PRESET, small_config

PLAN = """
name = "rate"
question = "Does a tenth of the rate teach as much?"

[recipe]
name = "r"
model = "{model}"
starts_from = "{start}"
fresh = ["encoders.audio.*"]
data.bounce = {{ kind = "world", world = "bounce", clips = 4 }}
[[recipe.stage]]
name = "align"
steps = 2
batch = 2
learning_rate = 1e-3
objectives = [
    {{ task = "align", data = {{ bounce = 1.0 }}, settings = {{ modality = "audio" }} }},
]

[[arm]]
name = "some"

[[arm]]
name = "less"
note = "a tenth"
change = ["stage.0.learning_rate=1e-4"]

[[measure]]
suite = "bounce"
tasks = ["text-to-text", "codec-audio"]
samples = 2
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    save_model(fresh_model(small_config(), small_config().parts(), seed=3), tmp_path / "given")
    file = tmp_path / "plan.toml"
    file.write_text(PLAN.format(model=PRESET, start=tmp_path / "given"))
    return file


def test_help_names_every_shipped_plan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ablate", "--help"])
    assert f"Shipped plans: {', '.join(shipped_ablations())}." in capsys.readouterr().out


@pytest.mark.parametrize("name", shipped_ablations())
def test_a_shipped_plan_is_sound(name: str) -> None:
    plan = load_ablation(name)
    assert plan.question.endswith("?")
    recipes = [plan.recipe_of(arm) for arm in plan.arm]
    assert all(recipe.starts_from == "tiny" for recipe in recipes)
    for other in recipes[1:]:  # arms differ in what they change, and in nothing else
        assert other.data == recipes[0].data
        assert other.seed == recipes[0].seed
        assert other != recipes[0]


@pytest.mark.slow  # the shipped weights are read for every arm
@pytest.mark.parametrize("name", shipped_ablations())
def test_every_arm_of_a_shipped_plan_takes_its_steps(name: str, tmp_path: Path) -> None:
    plan = load_ablation(name)
    for arm in plan.arm:
        recipe = plan.recipe_of(arm)
        short = {source: table | {"clips": 16} for source, table in recipe.data.items()}
        stages = tuple(
            replace(
                stage,
                steps=8,
                objectives=tuple(replace(o, batch=4) for o in stage.objectives),
            )
            for stage in recipe.stage
        )
        settings = RunSettings(tmp_path / arm.name, tmp_path / "cache", sample_every=0)
        Run(replace(recipe, data=short, stage=stages), settings).run()


def test_all_arms_are_trained_measured_and_told(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    page = tmp_path / "results.md"
    words = ["ablate", str(plan), "--out", str(out), "--results", str(page)]
    found = main([*words, "--sample-every", "0", "--quiet"])
    printed, errors = capsys.readouterr()
    assert found == 0, errors
    assert "Does a tenth of the rate teach as much?" in printed
    told = json.loads((out / "rate.json").read_text())
    columns = {cell["split"] for cell in told["cells"]}
    assert columns == {"some", "less"}
    assert {cell["task"] for cell in told["cells"]} == {"text-to-text", "codec-audio"}
    assert "less: a tenth" in (out / "rate.md").read_text()
    assert (out / "rate.svg").read_text().startswith("<svg")
    assert (told["settings"]["model"], told["settings"]["seed"]) == ("given", 0)
    begun = f"model given (weights {told['settings']['weights'][:12]}), sampler "
    assert begun in page.read_text()
    assert "<!-- results of ablate-rate -->" in page.read_text()
    assert "| task | what | some | less | chance | n |" in page.read_text()
    assert "every arm is one training run" in page.read_text()
    assert "Media: audio sample_rate_hz 16000" in page.read_text()
    changed = {(c["task"], c["split"]) for c in told["cells"] if "change from some" in c["fact"]}
    assert changed == {("text-to-text", "less"), ("codec-audio", "less")}
    by_fact = {(c["task"], c["split"], c["fact"]): c for c in told["cells"]}
    for (task, arm, fact), cell in by_fact.items():
        change = by_fact.get((task, "less", f"{fact} change from some"))
        if arm == "less" and change:
            assert change["value"] == pytest.approx(
                cell["value"] - by_fact[task, "some", fact]["value"]
            )
            assert (change["n"], change["unit"]) == (2, "points")
            assert change["ci95"][0] <= change["value"] <= change["ci95"][1]
    assert by_fact["codec-audio", "less", "tempo change from some"]["ci95"] == list(
        paired_interval(0, 0, 2)  # nothing that it goes through was trained
    )
    assert "tempo change from some |  | +0.0 points (" in (out / "rate.md").read_text()
    models = [load_model(out / arm / "model", ["encoders.audio"]) for arm in ("some", "less")]
    taught, left = (m.encoder("audio").to_embedding.weight for m in models)
    assert not (taught == left).all()

    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    words = ["ablate", str(plan), "--out", str(out), "--only", "less", "--samples", "1", "--quiet"]
    assert main(words) == 0
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    alone = (out / "rate.md").read_text()
    assert "Left out: change from some: that arm is not named with --only." in alone
    assert "change from some |" not in alone

    plan.write_text(plan.read_text().replace("learning_rate=1e-4", "learning_rate=1e-5"))
    words = ["ablate", str(plan), "--out", str(tmp_path / "new"), "--only", "less"]
    assert main([*words, "--results", str(page)]) == 2
    assert "numbers of another recipe of arm 'less'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()  # said before it is trained


def test_runs_of_other_seeds_are_averaged(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "out", tmp_path / "results.md"
    words = ["ablate", str(plan), "--out", str(out), "--results", str(page), "--quiet"]
    found = main([*words, "--runs", "2", "--samples", "2", "--sample-every", "0"])
    assert found == 0, capsys.readouterr().err
    kept = {file.parent.name: load_toml(file) for file in out.glob("*/recipe.toml")}
    seeds = {name: recipe.get("seed", 0) for name, recipe in kept.items()}
    assert seeds == {"some": 0, "some-run-2": 1, "less": 0, "less-run-2": 1}
    encoders = [
        load_model(out / name / "model", ["encoders.audio"]).encoder("audio") for name in seeds
    ]
    assert not (encoders[0].to_embedding.weight == encoders[1].to_embedding.weight).all()
    cells = json.loads((out / "rate.json").read_text())["cells"]
    assert {cell["split"] for cell in cells} == {"some", "less"}
    changed = [cell for cell in cells if cell["fact"] == "tempo change from some"]
    assert {(c["n"], len(c["runs"])) for c in changed} == {(4, 2)}
    assert {c["split"] for c in changed} == {"less"}
    assert "`codi ablate rate --out DIR --runs 2 --samples 2`: model given" in page.read_text()
    assert "Every arm was trained 2 times, with seeds 0 to 1" in page.read_text()
    assert "| tempo | 100.0 % (34–100): 100.0, 100.0 | 100.0 % (34–100): 100.0, 100.0 |" in (
        page.read_text()
    )
    assert main([*words, "--only", "less"]) == 2  # one run is another measurement
    assert "numbers of other weights or settings" in capsys.readouterr().err


def test_mistakes_are_named(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*words: str) -> str:
        assert main(["ablate", *words]) == 2
        return capsys.readouterr().err

    out = ["--out", str(tmp_path / "out")]
    assert "unknown ablation 'pairs'; did you mean 'pair'" in error("pairs", *out)
    assert "--only: unknown arm 'som'; did you mean 'some'" in error(
        str(plan), *out, "--only", "som"
    )
    folder = tmp_path / "out" / "some"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text("another")
    assert "holds a run of another recipe" in error(str(plan), *out, "--only", "some")
    text = plan.read_text()
    plan.write_text(text.replace("learning_rate=1e-4", "learning_raet=1e-4"))
    assert "arm 'less'" in error(str(plan), *out)
    plan.write_text(text.replace('name = "less"', 'name = "some"'))
    assert "arms are some, some; give two or more" in error(str(plan), *out)
    plan.write_text(f"runs = 0\n{text}")
    assert "runs = 0; give 1 or more" in error(str(plan), *out)


def test_a_plan_measures_something(plan: Path) -> None:
    plan.write_text(plan.read_text().partition("[[measure]]")[0] + "measure = []\n")
    with pytest.raises(ConfigError, match="measure"):
        load_ablation(plan)


def test_a_table_has_a_column_for_each_arm() -> None:
    assert rows_of([]) == [["task", "what", "chance", "n"]]
