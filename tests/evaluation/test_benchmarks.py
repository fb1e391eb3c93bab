"""From tiny samples of published data sets to the tables of the paper, with a small model."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from codi.cli import main
from codi.config import ConfigError
from codi.evaluation import benchmarks
from codi.evaluation.benchmarks import BenchmarkSuite, _reads
from codi.evaluation.bounce import BounceSuite
from codi.evaluation.cells import Cell
from codi.evaluation.extractors.catalogue import Extractors
from codi.evaluation.extractors.offsets import OffsetExtractor
from codi.evaluation.metrics import java
from codi.evaluation.metrics.embeddings import cosines
from codi.evaluation.metrics.synchrony import desync_s
from codi.evaluation.protocols import InputRow, MetricRow, Protocol, TaskRow, load_protocol
from codi.evaluation.runner import Run, evaluate
from codi.evaluation.suites import REFERENCES_FROM, Input, Task
from codi.pipeline import SamplingSettings, load
from codi.types import Latents
from codi.worlds import bounce
from tests.data.benchmarks import layouts
from tests.evaluation.test_runner import Counting

OWN = ("inception", "clip", "i3d", "panns", "vggish", "clap")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    layouts.coco(root / "coco", count=6)
    layouts.msrvtt(root / "msrvtt")
    layouts.audiocaps(root / "audiocaps")
    return root


def measured(folder: Path, suite: str, data: Path, out: Path, **settings: object) -> list[Cell]:
    given: dict[str, object] = {"samples": 3, "steps": 1, "batch": 2, "data": str(data)}
    given |= {"extractors": dict.fromkeys(OWN, "codi")} | settings
    return evaluate(folder, suite, out=out, **given)  # type: ignore[arg-type]


def test_a_table_is_measured_with_stand_ins_for_its_networks(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    cells = measured(folder, "table2", data, tmp_path)
    assert [(c.fact, c.paper, c.better) for c in cells] == [
        ("fid", None, "lower"),  # the paper's figure is of another network
        ("kid", None, "lower"),
        ("clip_score", None, "higher"),
    ]
    for cell in cells:
        assert (cell.n, cell.extractor, cell.split) == (3, "codi", "val2014")
        assert cell.value is not None
        assert cell.ci95 is not None
        assert cell.ci95[0] <= cell.value <= cell.ci95[1]
    settings = json.loads((tmp_path / "table2.json").read_text())["settings"]
    assert (settings["sampler"], settings["steps"], settings["eta"]) == ("ddim", 1, 1.0)
    assert settings["guidance"] == {"image": 2.0}
    assert settings["seed"] == 0
    assert len(settings["extractors"]["inception"]["sha256"]) == 64
    assert settings["media"]["image"] == {"size_px": 64}
    assert "11.26" not in (tmp_path / "table2.md").read_text()
    page = (tmp_path / "table2.html").read_text()
    assert 'src="samples/table2/text-to-image-val2014.png"' in page
    assert "https://" not in page


def test_an_interrupted_table_goes_on_where_it_was(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    whole = measured(folder, "table2", data, tmp_path / "whole", samples=4)
    with pytest.raises(KeyboardInterrupt):
        measured(folder, "table2", data, tmp_path / "cut", samples=4, progress=Counting(most=5 + 4))
    rest = Counting()
    assert measured(folder, "table2", data, tmp_path / "cut", samples=4, progress=rest) == whole
    assert rest.batches < 5 + 6  # looking for five pictures, then 3 tasks of two batches


def test_joint_and_independent_generation_are_paired(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    names = ["text-to-video+audio-apart", "text-to-video+audio"]
    cells = measured(folder, "table11", data, tmp_path, tasks=names, extractors={})
    found = {(c.task, c.fact): c for c in cells}
    apart, joint, gain = (
        found[key]
        for key in (
            (names[0], "video+audio sim"),
            (names[1], "video+audio sim"),
            (names[1], "video+audio gain"),
        )
    )
    assert (apart.paper, joint.paper) == (0.240, 0.255)
    assert None not in (apart.value, joint.value, gain.value)
    assert gain.value == pytest.approx((joint.value or 0.0) - (apart.value or 0.0), abs=1e-6)
    aligned = found[names[1], "video+audio av_align"]
    assert aligned.value is not None
    assert 0.0 <= aligned.value <= 1.0
    page = (tmp_path / "table11.html").read_text()
    assert "<audio controls" in page
    assert "<video controls" in page


def test_features_with_gaps_are_not_read_whole(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, seen = tmp_path / "data", []
    shutil.copytree(data / "coco", own / "coco")
    picture = sorted((own / "coco/val2014").glob("*.jpg"))[0]
    picture.write_bytes(picture.read_bytes()[:200])
    whole = benchmarks.picked

    def noted(*given: Any) -> np.ndarray:
        seen.append(whole(*given))
        return seen[-1]

    monkeypatch.setattr(benchmarks, "picked", noted)
    cells = measured(folder, "table2", own, tmp_path, samples=5)
    assert {cell.n for cell in cells} == {4}
    assert seen
    assert all(isinstance(rows, np.memmap) and len(rows) == 4 for rows in seen)


@pytest.mark.parametrize("name", ["table11", "coherence"])
def test_synchrony_of_joint_tasks_is_paired_too(name: str) -> None:
    rows = [row for row in load_protocol(name).tasks if row.path == "model"]
    made = {(row.inputs, row.outputs) for row in rows if row.apart}
    aligned = [row for row in rows if "av_align" in {metric.metric for metric in row.metrics}]
    for row in aligned:
        gains = [metric for metric in row.metrics if metric.metric == "av_align_gain"]
        assert len(gains) == (0 if row.apart else 1)
        assert (row.inputs, row.outputs) in made
    assert len(aligned) == 8


def test_features_on_disk_are_what_the_numbers_come_from(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    (cell,) = measured(folder, "table3", data, tmp_path, extractors={"clip": "codi"}, samples=2)
    rows = {
        name: np.fromfile(next(tmp_path.glob(f"partial/table3/{name}*.f32")), "<f4").reshape(2, -1)
        for name in ("true-text", "text-to-video")
    }
    assert cell.value == pytest.approx(cosines(*rows.values()).mean(), abs=1e-6)
    report = (tmp_path / "table3.md").read_text()
    assert "Left out: text-to-video fvd: --extractors i3d=PATH, the file i3d_torch" in report


def test_captions_need_no_network_and_stand_beside_the_papers_figures(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    cells = measured(folder, "table6", data, tmp_path, extractors={}, samples=2)
    assert {c.fact: c.paper for c in cells if c.paper} == {"bleu_4": 0.402, "cider_d": 1.499}
    assert "| 0.402 |" in (tmp_path / "table6.md").read_text()
    assert [c.fact for c in cells] == ["bleu_4", "cider_d", "rouge_l", "meteor_stem", "cider"]
    assert all(cell.extractor is None for cell in cells)
    assert "meteor-1.5.jar" in (tmp_path / "table6.md").read_text()


def test_several_conditions_come_from_one_video(folder: Path, data: Path, tmp_path: Path) -> None:
    names = ["text+audio+image-to-video"]
    (cell,) = measured(folder, "table10", data, tmp_path, tasks=names, samples=9)
    assert (cell.n, cell.paper) == (2, None)  # the third video has no sound


def test_stand_ins_give_no_logits(folder: Path, data: Path, tmp_path: Path) -> None:
    cells = measured(folder, "table5", data, tmp_path)
    assert [c.fact for c in cells] == ["fd", "fad", "clap_score"]
    report = (tmp_path / "table5.md").read_text()
    assert "inception_score: extractor codi gives no logits; give --extractors panns" in report


def test_too_few_samples_leave_a_metric_out(folder: Path, data: Path, tmp_path: Path) -> None:
    cells = measured(folder, "table2", data, tmp_path, samples=1)
    assert [c.fact for c in cells] == ["clip_score"]
    assert "fid: 1 samples have no covariance" in (tmp_path / "table2.md").read_text()


def test_damaged_media_are_passed_over_as_missing_ones_are(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "data"
    shutil.copytree(data / "coco", own / "coco")
    for picture in sorted((own / "coco/val2014").glob("*.jpg"))[:2]:
        picture.write_bytes(picture.read_bytes()[:200])
    cells = measured(folder, "table2", own, tmp_path, samples=5)
    assert {cell.n for cell in cells} == {3}
    assert all(cell.value is not None for cell in cells)
    settings = json.loads((tmp_path / "table2.json").read_text())["settings"]
    assert [settings[name] for name in ("items", "missing", "damaged", "samples")] == [5, 1, 2, 3]
    report = (tmp_path / "table2.md").read_text()
    assert "Left out: items without media: 1." in report
    assert "Left out: items with damaged media: 2, such as " in report
    assert ".jpg" in report
    assert "Media: image size_px 64" in report
    tables = {path: path.read_bytes() for path in tmp_path.glob("partial/table2/*.jsonl")}
    assert measured(folder, "table2", own, tmp_path, samples=5) == cells
    assert {path: path.read_bytes() for path in tables} == tables  # nothing is made twice


def test_damage_of_all_media_is_the_error(folder: Path, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "data"
    shutil.copytree(data / "coco", own / "coco")
    for picture in (own / "coco/val2014").glob("*.jpg"):
        picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"nothing of table2 could be measured: .*\.jpg"):
        measured(folder, "table2", own, tmp_path / "new", samples=2)


@pytest.mark.parametrize(
    ("suite", "name", "change", "said"),
    [
        ("table5", "audiocaps/test.csv", ("start_time", "start"), "KeyError: 'start_time'"),
        ("table2", "coco/annotations/captions_val2014.json", ("]}", ""), "JSONDecodeError: "),
    ],
)
def test_lists_that_cannot_be_read_are_named(
    suite: str,
    name: str,
    change: tuple[str, str],
    said: str,
    folder: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    own = tmp_path / "data"
    shutil.copytree(data, own)
    (own / name).write_text((own / name).read_text().replace(*change))
    where = f"{load_protocol(suite).data}: the lists of .*{said}"
    with pytest.raises(ConfigError, match=where) as caught:
        measured(folder, suite, own, tmp_path)
    assert "\n" not in str(caught.value)


def test_features_that_are_no_numbers_leave_their_metric_out(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    cells = measured(folder, "table2", data, tmp_path)
    (path,) = tmp_path.glob("partial/table2/text-to-image*.inception.*.f32")
    path.write_bytes(np.full(path.stat().st_size // 4, np.nan, "<f4").tobytes())
    again = measured(folder, "table2", data, tmp_path)
    assert [cell.fact for cell in again] == [cell.fact for cell in cells][2:]
    report = (tmp_path / "table2.md").read_text()
    assert "fid: features of text-to-image by codi from" in report
    assert "are not finite; check the media and that file" in report


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_of_another_network_is_found_before_anything_is_sampled(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 3)), str(tmp_path / "panns_cnn14.pt"))
    with pytest.raises(ConfigError, match=r"panns_cnn14\.pt: given \(1, 64000\), fails with"):
        measured(folder, "table5", data, tmp_path, extractors={"panns": str(tmp_path)})
    assert not (tmp_path / "partial").exists()


def test_the_window_of_av_align_is_a_frame_of_the_models_clips(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    suite = claim(folder, "coherence")
    assert suite.frame_s == 1 / suite.config.modality("video").media["fps"]
    names = ["text-to-video+audio"]
    measured(folder, "table11", data, tmp_path, tasks=names, extractors={}, samples=1)
    assert f"events within {1000 * suite.frame_s:.4g} ms" in (tmp_path / "table11.md").read_text()


class Judge(torch.nn.Module):
    """One whose offset depends on the clip and on its sound, so that none other will do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets_s", torch.arange(-3, 4) / 10.0)

    def forward(self, clips: Tensor, waveforms: Tensor) -> Tensor:
        seen = 10.0 * clips.std((1, 2, 3, 4)) + 1000.0 * waveforms.std(1)
        return torch.nn.functional.one_hot(seen.long() % 7, 7).float()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_learned_judge_looks_at_clips_with_their_own_sounds(folder: Path, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Judge()), str(tmp_path / "desync.pt"))
    (tmp_path / "mine.toml").write_text(
        'title = "Mine"\ndata = "bounce"\nsplit = "trained"\nsamples = 5\n[[tasks]]\n'
        'inputs = []\noutputs = ["audio", "video"]\npath = "true"\n'
        'metrics = [{ metric = "desync", extractor = "desync" }]\n'
    )
    given = {"desync": str(tmp_path)}
    (cell,) = evaluate(
        folder, str(tmp_path / "mine.toml"), out=tmp_path / "out", batch=2, extractors=given
    )
    assert (cell.fact, cell.better, cell.n) == ("video+audio desync", "lower", 5)
    judge, suite = OffsetExtractor(str(tmp_path)), claim(folder, "coherence")
    clips, sounds = (
        [suite.medium("trained", i, name) for i in range(5)] for name in ("video", "audio")
    )
    pairs = zip(clips, sounds, strict=True)
    said = judge("video", [dataclasses.replace(clip, audio=sound) for clip, sound in pairs])
    wanted = desync_s(said["offset_s"][:, 0])
    assert cell.value == pytest.approx(wanted.mean())
    assert len(set(wanted)) > 1
    report = (tmp_path / "out/mine.md").read_text()
    assert "desync: desync from" in report
    assert "(desync) ↓" in report
    without = tmp_path / "without"
    with pytest.raises(ConfigError, match=r"--extractors desync=PATH, the file desync\.pt: a clas"):
        evaluate(folder, str(tmp_path / "mine.toml"), out=without)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_parts_that_a_suite_names_stand_in_the_result(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    class Panns(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 50.0 * x[:, :6]

    torch.jit.save(torch.jit.script(Panns()), str(tmp_path / "panns_cnn14.pt"))
    given = {"panns": str(tmp_path)}
    cells = measured(folder, "table5", data, tmp_path, extractors=given)
    assert "inception_score" not in {cell.fact for cell in cells}  # 3 samples have no ten parts
    settings = json.loads((tmp_path / "table5.json").read_text())["settings"]
    assert settings["score_splits"] == {"text-to-audio inception_score": 10}
    report = (tmp_path / "table5.md").read_text()
    assert "text-to-audio inception_score: the mean over 10 parts of the samples." in report
    assert "inception_score: 3 samples in 10 parts; give a sample for every part." in report


def test_bridging_is_measured_on_true_scenes(folder: Path, tmp_path: Path) -> None:
    names = ["true-image+audio", "true-text+image"]
    cells = evaluate(folder, "bridging", samples=12, out=tmp_path, tasks=names, batch=6)
    facts = [f"{of} recall_at_{k}" for of in ("image+audio", "audio+image") for k in (1, 5, 10)]
    assert [c.fact for c in cells if c.task == names[0]] == facts
    assert [c.chance for c in cells[:3]] == pytest.approx([1 / 12, 5 / 12, 10 / 12])
    for cell in cells:
        assert cell.value is not None
        assert 0.0 <= cell.value <= 1.0


def test_facts_of_a_world_stand_beside_the_metrics(folder: Path, tmp_path: Path) -> None:
    settings = {"samples": 4, "steps": 1, "out": tmp_path, "tasks": ["audio-to-image"]}
    cells = evaluate(folder, "conditions", extractors={"clip": "codi"}, **settings)  # type: ignore[arg-type]
    assert [c.fact for c in cells] == ["material", "size", "kid"]
    left_out = json.loads((tmp_path / "conditions.json").read_text())["settings"]["left_out"]
    assert left_out["--extractors clip"] == "not read; suite conditions reads codi"


@pytest.mark.parametrize(
    ("suite", "read"), [("conditions", {"codi"}), ("table6", {"java"}), ("table9", {"inception"})]
)
def test_a_suite_knows_which_extractors_its_rows_read(suite: str, read: set[str]) -> None:
    assert _reads(load_protocol(suite)) >= read


def test_conditions_are_held_against_fewer_of_them(folder: Path, tmp_path: Path) -> None:
    def found(*names: str) -> dict[str, Cell]:
        given = {"samples": 4, "steps": 1, "out": tmp_path, "tasks": names}
        cells = evaluate(folder, "conditions", **given)  # type: ignore[arg-type]
        return {cell.fact: cell for cell in cells if cell.task == "text+audio-to-image"}

    assert not any("change" in fact for fact in found("text+audio-to-image"))
    report = (tmp_path / "conditions.md").read_text()
    assert "Left out: text+audio-to-image change from text-to-image: text-to-image is not" in report
    found("text-to-image")  # another command
    told = found("text+audio-to-image")
    rows = [fact for fact in told if "change" in fact]
    assert rows == [f"{fact} change from text-to-image" for fact in bounce.SHOWS["image"]]
    every = json.loads((tmp_path / "conditions.json").read_text())["cells"]
    alone = {c["fact"]: c["value"] for c in every if c["task"] == "text-to-image"}
    for fact in bounce.SHOWS["image"]:
        change = told[f"{fact} change from text-to-image"]
        assert (change.n, change.unit) == (4, "points")
        assert change.value == pytest.approx((told[fact].value or 0.0) - alone[fact])
    report = (tmp_path / "conditions.md").read_text()
    assert "change from audio-to-image: audio-to-image is not measured here" in report
    assert "change from text-to-image: text-to-image is not" not in report


def test_a_sweep_of_weights_is_measured_and_drawn(folder: Path, tmp_path: Path) -> None:
    names = ["1text+0other-image-to-image", "0text+1other-image-to-image"]
    cells = evaluate(folder, "weights", samples=4, steps=1, out=tmp_path, tasks=names)
    assert {c.fact for c in cells} >= {"colour of text", "colour of other image"}
    drawn = (tmp_path / "weights.svg").read_text()
    assert "text+other-image-to-image: other image" in drawn
    assert drawn.count("<polyline") == 2
    means = [c for c in cells if c.fact.startswith("mean of the facts of ")]
    assert len(means) == 4
    assert all(c.ci95 is not None and c.unit == "share" for c in means)
    assert 'src="weights.svg"' in (tmp_path / "weights.html").read_text()


def claim(folder: Path, name: str, **changes: object) -> BenchmarkSuite:
    protocol = dataclasses.replace(load_protocol(name), **changes)  # type: ignore[arg-type]
    return BenchmarkSuite(name, protocol, Extractors({}, load(folder, device="cpu")), None)


def test_claims_are_measured_on_held_out_scenes_too(folder: Path, tmp_path: Path) -> None:
    splits = ["trained", "held-out"]
    cells = evaluate(
        folder, "bridging", samples=2, out=tmp_path, tasks=["true-text+image"], splits=splits
    )
    assert {cell.split for cell in cells} == {*splits}
    assert json.loads((tmp_path / "bridging.json").read_text())["settings"]["splits"] == splits
    suite = claim(folder, "weights")
    for split in splits:
        facts = bounce.parse_caption(suite.caption(split, 0, Input("text")))
        assert facts == suite.truth(split, 0).facts
    found = [
        Cell("1text+0other-image-to-image", "image", "x", s, 1.0, 1, 0.5, None) for s in splits
    ]
    assert "image-to-image, held-out" in (suite.plot(found) or "")


def test_clips_are_as_consistent_as_their_frames_are_alike(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    cells = measured(folder, "temporal", data, tmp_path, samples=2)
    found = {c.task: c for c in cells if c.fact == "frame_consistency"}
    assert list(found) == ["true-video", "codec-video", "text-to-video"]
    assert all(c.extractor == "codi_frames" and c.value is not None for c in found.values())
    assert "text-to-video" in {c.task for c in cells if c.fact == "tempo"}


def test_claims_draw_what_they_name(folder: Path) -> None:
    suite = claim(folder, "coherence")
    name = suite.tasks[-1].name
    facts = ("video+audio gain", "video+audio sim")
    found = [Cell(name, "x", f, "trained", 0.1, 9, None, (0.0, 0.2), "number") for f in facts]
    picture = suite.plot(found) or ""
    assert f">{name}<" in picture
    assert ">video+audio gain<" in picture
    assert "sim" not in picture
    assert suite.plot(found[1:]) is None
    assert claim(folder, "coherence", plot=()).plot(found) is None
    with pytest.raises(ConfigError, match=r"suite coherence: plot: unknown .*'gian'.*'gain'"):
        claim(folder, "coherence", plot=("gian",))
    both = [dataclasses.replace(found[0], split=split) for split in ("trained", "held-out")]
    assert ">video+audio gain, held-out<" in (suite.plot(both) or "")


def test_sets_are_compared_with_scenes_that_prompt_nothing(folder: Path, data: Path) -> None:
    suite = claim(folder, "conditions")
    (needed,) = suite.needs(suite.tasks[0])
    assert (needed.name, needed.first) == ("reference-image", REFERENCES_FROM)
    extractors = Extractors(dict.fromkeys(OWN, "codi"), load(folder, device="cpu"))
    table = BenchmarkSuite("table2", load_protocol("table2"), extractors, data)
    assert {task.name for task in table.needs(table.tasks[0])} == {"true-image", "true-text"}


def test_onsets_and_peaks_stand_beside_the_oracles_impacts(folder: Path) -> None:
    suite, oracle = claim(folder, "coherence"), BounceSuite()
    for modality in ("audio", "video"):
        item = suite.medium("trained", 0, modality)
        (found,), (read,) = suite.read(modality, [item]), oracle.read(modality, [item])
        assert found.peaks_s
        assert dataclasses.replace(found, peaks_s=None) == read


def test_one_task_more_changes_nothing_for_the_others(folder: Path) -> None:
    whole = claim(folder, "conditions")
    first = claim(folder, "conditions", tasks=load_protocol("conditions").tasks[:1])
    task = first.tasks[0]
    assert whole.fingerprint == first.fingerprint
    assert whole.depends(task) == first.depends(task)
    assert whole.depends(task) != claim(folder, "unseen").depends(task)  # where nobody looks at it


def test_a_written_prompt_describes_what_it_is_told_to(folder: Path) -> None:
    suite = claim(folder, "conditions")
    for shown_by in (None, "video", "image", "audio"):
        sentence = suite.caption("trained", 0, Input("text", shown_by=shown_by))
        told = bounce.parse_caption(sentence)
        assert told is not None
        assert set(told) == set(bounce.SHOWS[shown_by or "video"])


def test_guidance_of_one_modality_leaves_the_others(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    def said(**settings: object) -> dict[str, float]:
        measured(folder, "table2", data, tmp_path, samples=1, **settings)
        found: dict[str, float] = json.loads((tmp_path / "table2.json").read_text())["settings"]
        return found["guidance"]  # type: ignore[return-value]

    assert said(guidance={"video": 9.0}) == {"image": 2.0}
    assert said(guidance={"image": 3.0}) == {"image": 3.0}
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        said(guidance={"imag": 3.0})


def test_prompts_are_weighed_and_may_be_the_partners(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, contexts = load(folder, device="cpu"), []

    def noted(context: Tensor, *given: object, **settings: object) -> Latents:
        contexts.append(context)
        return sample(context, *given, **settings)  # type: ignore[arg-type]

    sample = pipeline.sample
    monkeypatch.setattr(pipeline, "sample", noted)

    def context_of(*inputs: Input, weights: tuple[float, ...] = ()) -> Tensor:
        run = Run(pipeline, BounceSuite(), SamplingSettings(steps=1), folder, seed=0)
        run._made(Task(inputs, ("image",), weights=weights), "trained", [0, 1])
        return contexts[-1]

    words, other = Input("text", shown_by="image"), Input("image", other=True)
    said, seen = context_of(words), context_of(Input("image"))
    torch.testing.assert_close(context_of(words, other, weights=(1.0, 0.0)), said)
    torch.testing.assert_close(context_of(words, other, weights=(0.0, 1.0)), seen.flip(0))
    mixed = context_of(words, other, weights=(0.25, 0.75))
    torch.testing.assert_close(mixed, 0.25 * said + 0.75 * seen.flip(0))


def test_only_a_world_says_when_anything_strikes(folder: Path) -> None:
    row = TaskRow(("text",), ("video", "audio"), metrics=(MetricRow("impacts_gain"),))
    protocol = Protocol("x", "coco", "val2014", 1, (row,))
    with pytest.raises(ConfigError, match=r"nobody knows when anything strikes in coco; leave imp"):
        BenchmarkSuite("mine", protocol, Extractors({}, load(folder, device="cpu")), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "bonce"}, "did you mean 'bounce'"),
        ({"split": "train"}, "did you mean 'trained'"),
        ({"data": "coco", "split": "val2014"}, "nobody knows the facts of coco"),
        ({"tells": ("color",)}, "did you mean 'colour'"),
        ({"tells": ("tempo",), "shown_by": "image"}, "unknown fact of image 'tempo'"),
    ],
)
def test_facts_that_the_data_do_not_know_are_refused(
    changes: dict[str, Any], message: str, folder: Path
) -> None:
    given = {key: changes.pop(key) for key in ("tells", "shown_by") if key in changes}
    rows = (TaskRow((InputRow("text", **given),), ("image",), measures=("facts",)),)
    protocol = Protocol("x", "bounce", "trained", 1, rows)
    with pytest.raises(ConfigError, match=message):
        BenchmarkSuite(
            "mine",
            dataclasses.replace(protocol, **changes),
            Extractors({}, load(folder, device="cpu")),
            None,
        )


def test_a_folder_of_programs_without_the_tokenizer_is_refused(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(ConfigError, match=r"no stanford-corenlp-3\.4\.1\.jar below"):
        measured(folder, "table6", data, tmp_path, extractors={"java": str(tmp_path)})


@pytest.mark.parametrize(
    ("suite", "settings", "message"),
    [
        ("table2", {"extractors": {}}, r"nothing can be measured; .*pt_inception-2015-12-05"),
        ("table4", {"extractors": {"i3d": "codi"}}, r"no ucf101 in .*get UCF101\.rar"),
        ("table2", {"splits": ["trained"]}, "unknown split 'trained'.*table2 has one split"),
        ("table2", {"extractors": {"inceptoin": "x"}}, "did you mean 'inception'"),
    ],
)
def test_what_is_missing_is_named(
    suite: str, settings: dict, message: str, folder: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        measured(folder, suite, data, tmp_path, **settings)


def test_without_data_the_way_to_it_is_told(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"no coco in .*get val2014\.zip"):
        measured(folder, "table2", empty, tmp_path)


def test_the_command_line_takes_a_table(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--suite", "table7", "--data", str(data), "--model", str(folder)]
    words += ["--num", "2", "--steps", "1", "--out", str(tmp_path), "--quiet"]
    assert main([*words, "--extractors", "clip=codi"]) == 0
    assert (tmp_path / "table7.json").is_file()
    assert main([*words, "--extractors", "clip"]) == 2
    assert "is not NAME=PATH" in capsys.readouterr().err
