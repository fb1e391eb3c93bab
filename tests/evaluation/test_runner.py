"""From a model's folder to a report: complete, resumable, and the same however it is cut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from codi.config import ConfigError
from codi.evaluation.bounce import BounceSuite
from codi.evaluation.cells import Cell
from codi.evaluation.runner import Run, evaluate
from codi.evaluation.suites import Input, Task
from codi.folders import SHIPPED
from codi.pipeline import SamplingSettings, load
from codi.weights import save_model
from tests.evaluation.toy_digits import write_shard
from tests.small import small_model

TASKS = ("text-to-image", "text+audio-to-image")
JOINT = ("keep-video-to-audio", "text-to-video+audio", "text-to-video+audio-apart")


def measured(folder: Path, out: Path, **settings: object) -> list[Cell]:
    given: dict[str, object] = {"samples": 4, "steps": 2, "batch": 3, "tasks": TASKS} | settings
    return evaluate(folder, "bounce", out=out, **given)  # type: ignore[arg-type]


class Counting:
    """Progress that counts batches, and may stop as Ctrl-C does."""

    def __init__(self, most: int = 1_000) -> None:
        self.most = most
        self.batches = 0

    def __call__(self, what: str, total: int) -> Iterator[int]:
        for step in range(total):
            if self.batches == self.most:
                raise KeyboardInterrupt
            self.batches += 1
            yield step


def test_a_report_is_written(folder: Path, tmp_path: Path) -> None:
    cells = measured(folder, tmp_path)
    assert {cell.task for cell in cells} == set(TASKS)
    assert {cell.split for cell in cells} == {"trained", "held-out"}
    assert {cell.fact for cell in cells} == {"shape", "colour", "material", "size", "background"}
    assert all(cell.n == 4 and cell.value is not None for cell in cells)
    table = json.loads((tmp_path / "bounce.json").read_text())
    assert len(table["cells"]) == len(cells)
    assert table["settings"]["steps"] == 2
    assert table["settings"]["samples"] == 4
    assert "| text+audio-to-image | shape |" in (tmp_path / "bounce.md").read_text()
    assert (tmp_path / "samples/bounce/text-to-image-held-out.png").is_file()


def test_a_page_of_results_holds_what_was_measured_in_pieces(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    for some, splits in ((TASKS[1:], ["trained"]), (TASKS, ["held-out"])):
        settings = {"tasks": some, "splits": splits, "samples": 2, "results": page}
        measured(folder, tmp_path / splits[0], **settings)
    text = page.read_text()
    command = "codi evaluate --model DIR --suite bounce --splits held-out trained --samples 2"
    pieces = "in pieces, with `--tasks`, `--splits` and `--samples`"  # 2 steps are its own
    assert f"`{command} --seed 0 --tasks {' '.join(TASKS)}`, {pieces}: model " in text
    assert "(weights " in text
    assert "\n\nMedia: audio sample_rate_hz 16000, duration_s 2; image size_px 64; video " in text
    rows = [line for line in text.splitlines() if line.startswith("| text")]
    assert [row.split(" | ")[0] for row in rows] == [f"| {task}" for task in TASKS]
    assert " |  | " in rows[0]  # not measured on trained scenes
    with pytest.raises(ConfigError, match="of other weights or settings"):
        measured(folder, tmp_path / "held-out", samples=2, steps=1, results=page)
    with pytest.raises(ConfigError, match="is a folder"):
        measured(folder, tmp_path, results=tmp_path)


def test_settings_that_are_not_the_models_own_are_in_the_command(
    folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "results.md"
    changed = {"steps": 3, "guidance": {"image": 4.5}, "seed": 1, "guidance_interval": (1, 900)}
    measured(folder, tmp_path, tasks=["true-image"], results=page, **changed)
    (line,) = (line for line in page.read_text().splitlines() if line.startswith("`codi"))
    for words in ("--seed 1", "--steps 3", "image=4.5", "--guidance-interval 1 900"):
        assert f" {words} " in line
    assert not any(f"--{name}" in line for name in ("sampler", "spacing", "eta", "reuse"))


def test_an_interrupted_run_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    whole = measured(folder, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        measured(folder, tmp_path / "cut", progress=Counting(most=3))
    rest = Counting()
    assert measured(folder, tmp_path / "cut", progress=rest) == whole
    assert rest.batches == 8 - 3
    again = Counting()
    assert measured(folder, tmp_path / "cut", progress=again) == whole
    assert again.batches == 0


def test_more_samples_and_tasks_add_to_what_is_there(folder: Path, tmp_path: Path) -> None:
    measured(folder, tmp_path, tasks=TASKS[:1], samples=2, batch=2)
    more = Counting()
    cells = measured(folder, tmp_path, tasks=TASKS[:1], samples=4, batch=2, progress=more)
    assert more.batches == 2
    assert {cell.n for cell in cells} == {4}
    measured(folder, tmp_path, tasks=["true-image"])
    table = json.loads((tmp_path / "bounce.json").read_text())
    assert {cell["task"] for cell in table["cells"]} == {"text-to-image", "true-image"}


def test_other_settings_are_measured_anew(folder: Path, tmp_path: Path) -> None:
    settings: list[dict[str, object]] = [
        {},
        {"steps": 1},
        {"guidance": {"image": 1.0}},
        {"seed": 1},
    ]
    for changed in settings:
        batches = Counting()
        measured(folder, tmp_path, tasks=TASKS[:1], splits=["trained"], progress=batches, **changed)
        assert batches.batches == 2


def test_samples_on_the_page_are_of_the_tables_settings(folder: Path, tmp_path: Path) -> None:
    shown = tmp_path / "samples/bounce/text-to-image-trained.png"

    def sheet(steps: int, **settings: object) -> bytes:
        measured(folder, tmp_path, tasks=TASKS[:1], splits=["trained"], steps=steps, **settings)
        return shown.read_bytes()

    one, three, seeded = sheet(1), sheet(3), sheet(1, seed=1)
    assert len({one, three, seeded}) == 3
    again = Counting()
    assert sheet(1, progress=again) == one
    assert again.batches == 0
    for kept in (tmp_path / "partial/bounce").glob("*/*.png"):
        kept.unlink()  # as earlier versions left it: records, and a sheet of nobody knows what
    assert sheet(1) == one


def test_samples_of_settings_without_a_table_go(folder: Path, tmp_path: Path) -> None:
    names = ("text-to-image", "text-to-audio")
    measured(folder, tmp_path, tasks=names, splits=["trained"], steps=1)
    mine = tmp_path / "samples/bounce/mine.png"
    mine.touch()
    measured(folder, tmp_path, tasks=names[:1], splits=["trained"], steps=2)
    found = {path.name for path in mine.parent.iterdir()}
    assert found == {"mine.png", "text-to-image-trained.png"}


def test_the_number_of_samples_is_the_one_that_was_used(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(OWN_SUITE.replace("samples = 3", "samples = 30000"))
    evaluate(folder, str(mine), out=tmp_path, steps=1, samples=2)
    settings = json.loads((tmp_path / "mine.json").read_text())["settings"]
    assert (settings["samples"], settings["samples_of_suite"]) == (2, 30000)
    assert "samples 2 (the suite's own number: 30000)," in (tmp_path / "mine.md").read_text()


@dataclass(frozen=True)
class LaterTask(Task):
    """A task as it may become, with one more field."""

    added: int = 0


def test_what_was_measured_stays_when_tasks_gain_a_field(folder: Path, tmp_path: Path) -> None:
    run = Run(load(folder, device="cpu"), BounceSuite(), SamplingSettings(), tmp_path, seed=0)

    def kept(task: Task) -> Path:
        return run._ledger(task, "trained").path

    asked = Task((Input("text"),), ("image",))
    assert kept(LaterTask(asked.inputs, asked.outputs)) == kept(asked)
    assert kept(replace(asked, measures=("facts",))) == kept(asked)  # counted afterwards
    others = [
        LaterTask(asked.inputs, asked.outputs, added=1),
        replace(asked, inputs=(Input("text", shown_by="image"),)),
        replace(asked, apart=True),
        replace(asked, first=2),
    ]
    assert len({kept(task) for task in (asked, *others)}) == 5


def test_the_last_of_an_odd_number_of_items_has_a_partner(
    tmp_path: Path,
) -> None:
    class Three(BounceSuite):
        def count(self, split: str) -> int:  # type: ignore[override]
            return 3

    run = Run(None, Three(), SamplingSettings(), tmp_path, seed=0)  # type: ignore[arg-type]
    said = [run._given(Input("text", other=True), "trained", i) for i in range(3)]
    assert said == [Three().caption("trained", i, Input("text")) for i in (1, 0, 0)]


def test_a_model_of_another_wiring_is_measured_anew(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    table = (own / "config.toml").read_text()
    assert 'wiring = "others"' in table
    (own / "config.toml").write_text(table.replace('wiring = "others"', 'wiring = "own"'))
    batches = Counting()
    for model in (folder, own, own):
        measured(model, tmp_path / "out", tasks=TASKS[:1], progress=batches)
    assert batches.batches == 2 * 4  # two splits in two batches each, for two models of three


def test_how_environments_are_interpolated_matters_to_three_streams(
    folder: Path, tmp_path: Path
) -> None:
    pipeline = load(folder, device="cpu")
    config = pipeline.config
    three = Task((Input("text"),), ("image", "text", "audio"))
    two = Task((Input("video"),), ("audio",), kept=("video",))
    paths = []
    for interpolation in ("mean", "timed"):
        pipeline.config = replace(config, interpolation=interpolation)
        run = Run(pipeline, BounceSuite(), SamplingSettings(), tmp_path, seed=0)
        tasks = (three, replace(three, apart=True), two)
        paths.append([run._ledger(task, "trained").path for task in tasks])
    assert [a == b for a, b in zip(*paths, strict=True)] == [False, True, True]


def test_joint_tasks_say_whether_impacts_agree(folder: Path, tmp_path: Path) -> None:
    cells = measured(folder, tmp_path, tasks=JOINT, samples=2, splits=["trained"], steps=1)
    facts = {(cell.task, cell.fact) for cell in cells}
    assert (JOINT[0], "impacts") in facts
    assert {(task, "video+audio impacts") for task in JOINT[1:]} <= facts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["text-to-imag"]}, "did you mean 'text-to-image'"),
        ({"splits": ["train"]}, "did you mean 'trained'"),
    ],
)
def test_wrong_names_are_mended(
    folder: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        measured(folder, tmp_path, **settings)


def test_an_unknown_suite_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        evaluate(folder, "digit", out=tmp_path)


OWN_SUITE = """
title = "my suite"
data = "bounce"
split = "trained"
samples = 3
[[tasks]]
inputs = ["text"]
outputs = ["audio", "text"]
measures = ["facts"]
"""


def test_a_suite_can_be_a_file(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(OWN_SUITE)
    cells = evaluate(folder, str(mine), out=tmp_path, steps=2)
    assert {cell.task for cell in cells} == {"text-to-audio+text"}
    table = json.loads((tmp_path / "mine.json").read_text())
    assert table["settings"]["suite"] == "mine"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.toml", None, "missing.toml: cannot be read"),
        ("broken.toml", "title = ", "broken.toml: is not valid TOML"),
        ("strange.toml", OWN_SUITE + 'outputz = ["text"]', "outputz"),
        ("none.toml", OWN_SUITE.replace('["audio", "text"]', "[]"), "name one or more"),
        ("two.toml", OWN_SUITE.replace('"audio", "text"', '"text", "text"'), "each once"),
        ("empty.toml", OWN_SUITE.replace("samples = 3", "samples = 0"), "give 1 or more"),
        ("bounce.toml", OWN_SUITE, "has the name of a suite that ships"),
    ],
)
def test_a_wrong_suite_file_is_named(
    folder: Path, tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=said):
        evaluate(folder, str(tmp_path / name), out=tmp_path)


def test_what_is_not_trained_yet_is_left_out(tmp_path: Path) -> None:
    save_model(small_model(parts=("codecs.text",)), tmp_path / "model")
    evaluate(tmp_path / "model", out=tmp_path, samples=1)
    table = json.loads((tmp_path / "bounce.json").read_text())
    assert "diffusers.vision" in table["settings"]["left_out"]["text-to-image"]
    assert {"true-video", "codec-text"} <= {cell["task"] for cell in table["cells"]}
    with pytest.raises(ConfigError, match="train it first"):
        measured(tmp_path / "model", tmp_path)


def test_digits_are_measured_on_every_item(folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "digits-train.tar", 10, seed=0)
    write_shard(tmp_path / "digits-val.tar", 5, seed=1)
    cells = evaluate(
        folder,
        "digits",
        samples=50,
        out=tmp_path / "out",
        tasks=["text-to-text", "codec-text"],
        steps=1,
        data=str(tmp_path),
    )
    counted = {(cell.split, cell.n) for cell in cells if cell.fact != "precision"}
    assert counted == {("held-out", 5)}  # precision counts captions that state something
    settings = json.loads((tmp_path / "out/digits.json").read_text())["settings"]
    assert settings["samples"] == 5
    assert "Media: audio sample_rate_hz 16000" in (tmp_path / "out/digits.html").read_text()
    assert {"digit", "parses", "precision", "recall", "adds"} == {cell.fact for cell in cells}


def test_a_page_names_the_judges_and_keeps_to_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODI_DATA", raising=False)
    write_shard(tmp_path / "digits-test.tar", 4, seed=1)
    page, numbers = tmp_path / "results.md", tmp_path / "results/digits.json"

    def piece(task: str) -> None:
        where = {"out": tmp_path / "out", "data": str(tmp_path), "results": page}
        evaluate(folder, "digits", tasks=[task], samples=4, **where)  # type: ignore[arg-type]

    piece("true-image")
    piece("true-audio")  # of the same judges, which ship
    shipped = json.loads((SHIPPED / "judges/judges.json").read_text())["parts"]["digits"]["judges"]
    text = page.read_text()
    for name, judge in shipped.items():
        assert f"digits-{name} (sha256 {judge['sha256'][:16]}, the package, where " in text
    kept = json.loads(numbers.read_text())
    assert {len(piece["judges"]) for piece in kept["pieces"]} == {len(shipped)}
    for one in kept["pieces"]:
        one["judges"] = dict.fromkeys(one["judges"], "0" * 16)
    numbers.write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match=r"another judge \(digits-\S+ of true-image\)"):
        piece("true-audio")
