"""The paper's tables are data: figures as printed, metrics and data sets that exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from codi.config import ConfigError, build
from codi.data.benchmarks import BENCHMARKS
from codi.evaluation.comparing import METRICS
from codi.evaluation.extractors.catalogue import EXTRACTORS, OWNS
from codi.evaluation.items import WORLD
from codi.evaluation.protocols import (
    InputRow,
    MetricRow,
    Protocol,
    SamplingRow,
    TaskRow,
    load_protocol,
    protocol_names,
)
from codi.evaluation.runner import SUITES
from codi.evaluation.scoring import MEASURES

ROW = TaskRow(("text",), ("image",))
VIDEO = TaskRow(("text",), ("video",), measures=("facts",))


def held(name: str, measures: tuple[str, ...] = ("facts",)) -> Protocol:
    """Return a protocol whose task of two prompts is held against another."""
    one = TaskRow(("text",), ("image",), measures=("facts",))
    two = TaskRow(("text", "audio"), ("image",), measures=measures, against=(name,))
    return Protocol("x", "bounce", "trained", 1, (one, VIDEO, two))


PRINTED = {
    "table2": [11.26],
    "table3": [0.2890],
    "table4": [32.88, 596.34],
    "table5": [22.90, 8.77, 1.40, 1.80],
    "table6": [0.402, 0.310, 1.499],
    "table7": [0.480, 0.789, 0.182],
    "table8": [0.521, 0.325, 0.744],
    "table9": [14.2, 14.3, 14.9],
    "table10": [0.2890, 0.2912, 0.2891, 0.2923],
    "table11": [
        *(0.251, 0.260, 0.244, 0.256, 0.240, 0.255, 0.256, 0.261),
        *(0.256, 0.240, 0.240, 0.270, 0.257, 0.257, 0.247, 0.259),
    ],
}
"""The figures of CoDi, in the order of the tables; scores of captions from 0 to 1."""


SAMPLED = {
    "table2": (30000, {"image": 2.0}),
    "table3": (2990, {"video": 2.0}),
    "table4": (3783, {"video": 2.0}),
    "table5": (975, {"audio": 7.5}),
    "table6": (5000, {"text": 2.0}),
    "table7": (975, {"text": 2.0}),
    "table8": (2990, {"text": 2.0}),
    "table9": (495, {"image": 2.0}),
    "table10": (2990, {"video": 2.0}),
    "table11": (495, {"image": 2.0, "video": 2.0, "audio": 7.5, "text": 2.0}),
}
"""Items of each table, and the guidance of CoDi's Table 12."""


def test_every_table_is_a_suite() -> None:
    claims = ["bridging", "coherence", "conditions", "temporal", "unseen", "weights"]
    assert sorted(protocol_names()) == sorted([*PRINTED, *claims])
    assert set(protocol_names()) < set(SUITES)


def test_claims_on_the_bounce_world_need_no_data() -> None:
    for name in set(protocol_names()) - set(PRINTED):
        protocol = load_protocol(name)
        rows = [row for task in protocol.tasks for row in task.metrics]
        assert protocol.data == WORLD
        assert {row.extractor for row in rows} <= {*OWNS, ""}
        assert all(row.metric in METRICS for row in rows)
        assert all(measure in MEASURES for task in protocol.tasks for measure in task.measures)
        assert len({task.task.name for task in protocol.tasks}) == len(protocol.tasks)


@pytest.mark.parametrize("name", PRINTED)
def test_tables_hold_what_the_paper_prints(name: str) -> None:
    protocol = load_protocol(name)
    rows = [row for task in protocol.tasks for row in task.metrics]
    assert [row.paper for row in rows if row.paper is not None] == PRINTED[name]
    assert (protocol.samples, protocol.sampling.guidance) == SAMPLED[name]
    assert protocol.split in BENCHMARKS[protocol.data].splits
    for row in rows:
        metric = METRICS[row.metric]
        assert bool(metric.kinds) == bool(row.extractor)
        assert row.extractor in ("", *OWNS, *EXTRACTORS)
    assert len({task.task.name for task in protocol.tasks}) == len(protocol.tasks)
    assert (protocol.sampling.sampler, protocol.sampling.steps, protocol.sampling.eta) == (
        "ddim",
        50,
        1.0,
    )


def test_table_5_cuts_its_samples_as_audioldms_evaluation_does() -> None:
    rows = [row for task in load_protocol("table5").tasks for row in task.metrics]
    assert {row.metric: row.splits for row in rows if row.splits} == {"inception_score": 10}


def test_every_task_of_several_conditions_is_held_against_fewer_of_them() -> None:
    tasks = {row.task.name: row.task for row in load_protocol("conditions").tasks}
    several = [t for t in tasks.values() if len(t.inputs) > 1 and t.label != "divided"]
    assert several
    assert held("text-to-image").tasks[-1].task.against == ("text-to-image",)
    for task in several:
        assert len(task.against) == 2
        for fewer in (tasks[name] for name in task.against):
            assert set(fewer.inputs) < set(task.inputs)
            assert fewer.outputs == task.outputs


@pytest.mark.parametrize("name", ["table11", "coherence", "unseen"])
def test_every_joint_task_has_its_independent_one(name: str) -> None:
    tasks = [row.task for row in load_protocol(name).tasks if row.task.path == "model"]
    assert [t.name + "-apart" for t in tasks if not t.apart] == [t.name for t in tasks if t.apart]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (0.5,)}, "1 weights for 2 inputs"),
        ({"weights": (3.0, 4.0)}, "with the sum 1"),
        ({"kept": ("audio",)}, "unknown input that is kept: 'audio'"),
        ({"measures": ("obedence",)}, "did you mean 'obedience'"),
        ({"outputs": ("imag",)}, "did you mean 'image'"),
        ({"inputs": ("text", "vdeo")}, "did you mean 'video'"),
        ({"inputs": ("text", "text")}, "text, text: one twice"),
        ({"inputs": ()}, "0 inputs with path 'model'"),
        ({"path": "codec"}, "2 inputs with path 'codec'"),
        ({"apart": True}, "text\\+image-to-image-apart: one output is apart already; leave out"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TaskRow(**{"inputs": ("text", "image"), "outputs": ("image",)} | settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MetricRow("kidd", "codi"), "did you mean 'kid'"),
        (lambda: MetricRow("bleu_4", "clip"), "bleu_4 reads no extractor"),
        (lambda: MetricRow("fid", "inception", splits=10), "fid is no mean over parts; leave out"),
        (lambda: MetricRow("inception_score", "c3d", splits=0), "splits is 0; give 1 or more"),
        (lambda: MetricRow("sim", "codi", ("image", "txt")), "did you mean 'text'"),
        (lambda: InputRow("image", tells=("colour",)), "of written prompts, not of image"),
        (lambda: InputRow("text", shown_by="clip"), "unknown modality 'clip'"),
        (lambda: SamplingRow(guidance={"imge": 2.0}), "did you mean 'image'"),
        (lambda: SamplingRow(eta=7.0), r"eta is 7\.0; give 0"),
        (lambda: SamplingRow(steps=0), "steps is 0; give 1 or more"),
        (lambda: SamplingRow(sampler="dimm"), "did you mean 'ddim'"),
        (lambda: Protocol("x", "bounce", "trained", 1, (ROW, ROW)), "two tasks are called"),
        (lambda: held("text-to-imag"), "text.audio-to-image: against: .*did you mean 'text-to-im"),
        (lambda: held("text+audio-to-image"), "against: unknown other task 'text.audio-to-image'"),
        (lambda: held("text-to-video"), "text-to-video: that task does not make the same; name"),
        (lambda: held("text-to-image", ("sources",)), "no measure or metric in common; give both"),
    ],
)
def test_names_are_checked_when_a_protocol_is_read(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": ["image"]}, "sim is about 2 of the modalities, not 1 (image); say which with of"),
        ({"metric": "recall_at_5", "of": ["image", "audio", "text"]}, "2 of the modalities, not 3"),
        ({"metric": "kid"}, "kid is about 1 of the modalities, not 2 (image, audio)"),
        ({"metric": "av_align", "extractor": ""}, "av_align compares audio with video; add video"),
        (
            {"metric": "av_align", "extractor": "", "of": ["audio"]},
            "av_align is about audio and video; leave out of",
        ),
        (
            {"metric": "bleu_4", "extractor": "", "outputs": ["image"]},
            "bleu_4 compares captions that are made, not image; name a written output with of",
        ),
        (
            {"metric": "cider", "extractor": "", "outputs": ["image"], "of": ["text"]},
            "cider compares captions that are made, not text",
        ),
        (
            {"metric": "desync", "extractor": "desync"},
            "desync compares video with audio; add video to the outputs, or leave it out",
        ),
        (
            {"metric": "desync", "extractor": "desync", "of": ["audio"]},
            "desync is about video and audio; leave out of",
        ),
        ({"metric": "gain", "apart": True}, "gain compares several outputs made together"),
        ({"metric": "gain", "outputs": ["image"], "of": ["image", "text"]}, "leave it out of this"),
    ],
)
def test_a_metric_that_has_not_what_it_compares_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    row = {"metric": "sim", "extractor": "codi"} | settings
    task = {"inputs": ["text"], "outputs": row.pop("outputs", ["image", "audio"])}
    task |= {"apart": row.pop("apart", False), "metrics": [row]}
    table = {"title": "x", "data": "bounce", "split": "trained", "samples": 1, "tasks": [task]}
    with pytest.raises(ConfigError) as caught:
        build(Protocol, table, "mine.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.toml: tasks[0]: text-to-image")  # suite and task
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("measure", "task", "message"),
    [
        ("impacts", {"outputs": ("image",)}, "impacts is of two outputs that go on in time, or"),
        ("impacts", {"outputs": ("audio",)}, "impacts is of two outputs that go on in time, or"),
        ("captions", {"outputs": ("image",)}, "captions is of a written output; leave it out"),
        ("agreement", {"outputs": ("image",)}, "agreement is of two outputs or more"),
        ("obedience", {"outputs": ("image",)}, "obedience is of two inputs or more"),
        ("sources", {"outputs": ("image",)}, "sources is of two inputs or more"),
    ],
)
def test_a_measure_that_would_count_nothing_is_refused(
    measure: str, task: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TaskRow(("text",), measures=(measure,), **task)


def test_impacts_may_be_of_one_output_that_follows_another() -> None:
    TaskRow(("video",), ("audio",), measures=("impacts",), kept=("video",))
    TaskRow((), ("audio",), path="codec", measures=("impacts",))
    TaskRow(("text",), ("audio", "video"), measures=("impacts",))


def test_a_prompt_may_say_more_than_its_modality() -> None:
    row = TaskRow(("text", InputRow("text", ("colour",), "image", other=True)), ("image",))
    own, other = row.task.inputs
    assert (own.tells, own.shown_by, own.other) == (None, None, False)
    assert (other.tells, other.shown_by, other.other) == (("colour",), "image", True)
    assert row.task.name == "text+other-text-to-image"
