"""Fidelity against evaluations: what is counted, what is compared, what follows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from codi.build import Model
from codi.cli import main
from codi.evaluation import sampling
from codi.evaluation.bounce import BounceSuite
from codi.evaluation.records import Reading, Record
from codi.evaluation.sampling import (
    Fact,
    Grid,
    Outcome,
    compare_sampling,
    evaluations,
    markdown,
    outside_share,
    suggestion,
)
from codi.evaluation.statistics import paired_interval
from codi.evaluation.suites import Input, Task
from codi.pipeline import Pipeline, SamplingSettings
from codi.weights import save_model
from codi.worlds import bounce


def _count(pipeline: Pipeline, **settings: object) -> float:
    chosen = SamplingSettings(**{"steps": 10, "spacing": "trailing", **settings})  # type: ignore[arg-type]
    return evaluations(pipeline, chosen, ["audio"])


def test_evaluations_are_those_that_the_networks_see(model: Model, pipeline: Pipeline) -> None:
    settings = SamplingSettings(steps=4, guidance=2.0, guidance_interval=(400, 1000))
    seen: list[int] = []
    hook = model.part("diffusers", "audio").register_forward_pre_hook(
        lambda _module, args: seen.append(len(args[0]))
    )
    try:
        pipeline.sample(pipeline.empty_context(1), ["audio"], [0], settings=settings)
    finally:
        hook.remove()
    assert evaluations(pipeline, settings, ["audio"]) == sum(seen) == 7


def test_guidance_doubles_and_reuse_spares(pipeline: Pipeline) -> None:
    assert _count(pipeline, guidance=1.0) == 10
    assert _count(pipeline, guidance=3.0) == 20
    assert _count(pipeline, guidance=3.0, guidance_interval=(501, 1000)) == 15
    assert _count(pipeline, guidance=1.0, sampler="heun") == 18  # from pure noise
    share = outside_share(pipeline.config, "audio")
    assert 0 < share < 1
    assert _count(pipeline, guidance=1.0, reuse=2) == pytest.approx(5 + 5 * share)
    assert _count(pipeline, guidance=1.0, reuse=5) == pytest.approx(2 + 8 * share)


def test_a_grid_begins_with_the_reference_and_repeats_nothing(model: Model) -> None:
    grid = Grid((8, 4), ("ddim", "unipc"), ("trailing", "linspace"), ((200, 1000),), (2,), 50)
    found = grid.settings(model.config)
    own = model.config.sampling
    assert found[0] == SamplingSettings(own.sampler, 50, spacing=own.spacing)
    assert len(found) == len(set(found))
    plain = [s for s in found if s.reuse is None and s.guidance_interval is None]
    assert {(s.sampler, s.spacing) for s in plain[1:]} >= {
        ("ddim", "linspace"),
        ("unipc", "trailing"),
    }
    cheaper = [s for s in found if s.reuse or s.guidance_interval]
    assert len(cheaper) == 3 * 2
    assert {s.sampler for s in cheaper} == {own.sampler}


def _outcome(cost: float, *facts: tuple[float, float, float]) -> Outcome:
    told = [Fact("t", f"f{i}", 0.9, d, (low, high)) for i, (d, low, high) in enumerate(facts)]
    settings = {
        "sampler": "ddim",
        "spacing": "trailing",
        "steps": int(cost),
        "guidance_interval": None,
        "reuse": 1,
    }
    return Outcome(settings, {"t": cost}, tuple(told))


def test_the_fewest_evaluations_are_named_with_how_sure_they_are() -> None:
    outcomes = [
        _outcome(50, (0.0, 0.0, 0.0)),
        _outcome(20, (0.01, -0.005, 0.03)),
        _outcome(10, (-0.005, -0.04, 0.02)),
        _outcome(5, (-0.03, -0.06, 0.01)),
        _outcome(2, (-0.2, -0.3, -0.1)),
    ]
    flags = [(o.keeps, o.surely, o.fails) for o in outcomes]
    assert flags == [
        (True, True, False),
        (True, True, False),
        (True, False, False),
        (False, False, False),
        (False, False, True),
    ]
    said = [line for line in suggestion(outcomes) if line]
    assert [line.split(": ")[1].split()[0] for line in said] == ["10.0", "20.0", "5.0"]
    table = markdown("small", 7, outcomes)
    assert (
        "| ddim trailing | 2 | 2.0 | 90.0 | 90.0 | f0 -20.0 (-30.0 to -10.0) | no, surely |"
        in table
    )


def test_items_that_all_stay_are_not_sure_to() -> None:
    task = Task((Input("text"),), ("image",))
    before = {"image shape": np.array([1.0, 0.0, 1.0])}
    (reference,) = sampling._compared(task, before, None)
    (same,) = sampling._compared(task, before, before)
    assert (reference.difference, reference.ci95) == (0.0, (0.0, 0.0))
    assert (same.difference, same.ci95) == (0.0, paired_interval(0, 0, 3))
    (lost,) = sampling._compared(task, {"image shape": np.zeros(3)}, before)
    assert lost.ci95 == paired_interval(0, 2, 3)
    assert sampling.SURE_FROM == 381  # as the help of --samples says
    few = _outcome(10, (0.0, *paired_interval(0, 0, sampling.SURE_FROM - 1)))
    many = _outcome(10, (0.0, *paired_interval(0, 0, sampling.SURE_FROM)))
    assert (few.surely, many.surely) == (False, True)
    assert f"{sampling.SURE_FROM} can: see --samples" in markdown("small", 100, [many])
    assert "see --samples" not in markdown("small", sampling.SURE_FROM, [many])


class _Made:
    """A run whose clips strike on the second, and whose sounds do once of two times."""

    suite = BounceSuite()

    def records(self, *_: object) -> list[Record]:
        clip = Reading({}, (0.5, 1.0))
        sounds = [Reading({}, (0.5, 1.0)), Reading({}, (0.5, 1.5)), Reading({}, ())]
        return [
            Record(i, dict.fromkeys(bounce.FACTS, ""), None,
                   {"video": clip, "audio": sound})
            for i, sound in enumerate(sounds)
        ]  # fmt: skip


def test_impacts_seen_and_heard_together_are_compared_by_the_f1_of_each_item() -> None:
    task = Task((Input("text"),), ("video", "audio"))
    right = sampling._right(_Made(), task, 3)  # type: ignore[arg-type]
    assert right["video+audio impacts"] == pytest.approx([1.0, 0.5, 0.0])
    before = {name: np.ones(3) for name in right}
    found = {fact.fact: fact for fact in sampling._compared(task, right, before)}
    impacts = found["video+audio impacts"]
    assert impacts.difference == pytest.approx(-0.5)
    assert -1.0 <= impacts.ci95[0] < -0.5 < impacts.ci95[1] < 0.5
    alone = Task((Input("text"),), ("audio",))
    assert not any("impacts" in name for name in sampling._right(_Made(), alone, 3))  # type: ignore[arg-type]


def test_the_command_writes_a_table_and_a_plot(
    model: Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(model, tmp_path / "model")
    words = ["bench", "sampling", "--model", str(tmp_path / "model"), "--samples", "2", "--quiet"]
    words += ["--tasks", "text-to-audio", "--steps", "1", "--reference", "2", "--reuse", "2"]
    assert main([*words, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    assert "Fewest evaluations with every fact" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "sampling.json").read_text(encoding="utf-8"))
    assert [o["settings"]["steps"] for o in found["outcomes"]] == [2, 1, 1]
    table = (tmp_path / "out" / "sampling.md").read_text(encoding="utf-8")
    assert "| surely |" in table.splitlines()[8]  # the reference, and no other of two items
    assert table.count("| surely |") == 1
    assert (tmp_path / "out" / "sampling.svg").read_text(encoding="utf-8").startswith("<svg")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "partial").rglob("*.jsonl")}
    grid = Grid((1,), reference=2, reuse=(2,))
    compare_sampling(
        tmp_path / "model",
        grid,
        out=tmp_path / "out",
        samples=2,
        tasks=["text-to-audio"],
        device="cpu",
    )
    assert {p: p.stat().st_mtime_ns for p in before} == before  # nothing is made twice


def test_a_wrong_interval_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sampling", "--intervals", "800-200"]) == 2
    assert "--intervals 800-200: expected LOW-HIGH" in capsys.readouterr().err
    assert main(["bench", "sampling", "--samplers", "ddimm"]) == 2
    assert "did you mean 'ddim'" in capsys.readouterr().err
    assert sampling.TOLERANCE == 0.01
