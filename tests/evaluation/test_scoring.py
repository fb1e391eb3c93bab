"""Laws of scores: a perfect reader gets 1, a blind one gets chance, and sync is about pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from codi.evaluation.bounce import BounceSuite
from codi.evaluation.cells import Cell
from codi.evaluation.records import Reading, Record
from codi.evaluation.scoring import score
from codi.evaluation.statistics import bootstrap_interval, wilson_interval
from codi.evaluation.suites import Input, Task, partner
from codi.worlds import bounce

TERMS = BounceSuite.terms
TEXT = Input("text", shown_by="video")
Reader = Callable[[bounce.Scene, bounce.Scene, str], Reading]


def perfect(scene: bounce.Scene, other: bounce.Scene, output: str) -> Reading:
    """Read what is there."""
    facts = {fact: scene.facts[fact] for fact in bounce.SHOWS[output]}
    return Reading(facts, scene.impact_times_s if output in ("video", "audio") else None)


def blind(scene: bounce.Scene, other: bounce.Scene, output: str) -> Reading:
    """Read another scene, one for each output."""
    return perfect(other, other, output)


def cells(task: Task, reader: Reader, n: int = 400) -> dict[str, Cell]:
    scenes = [bounce.sample_scene(i) for i in range(n)]
    rng = np.random.default_rng(0)
    records = []
    for i, scene in enumerate(scenes):
        readings = {
            output: reader(scene, scenes[rng.integers(n)], output) for output in task.outputs
        }
        records.append(Record(i, dict(scene.facts), scene.impact_times_s, readings))
    return {cell.fact: cell for cell in score(task, TERMS, "trained", records)}


@pytest.mark.parametrize("output", ["image", "video", "audio", "text"])
def test_a_perfect_oracle_is_right_and_a_blind_one_is_at_chance(output: str) -> None:
    task = Task((TEXT,), (output,))
    right, wrong = cells(task, perfect), cells(task, blind)
    assert set(bounce.SHOWS[output]) <= right.keys()
    for fact in bounce.SHOWS[output]:
        assert (right[fact].value, right[fact].n) == (1.0, 400)
        assert right[fact].chance == 1.0 / len(bounce.FACTS[fact])
        ends = wrong[fact].ci95
        assert ends is not None
        # 99.99 %, not 95: there are many cells, and the facts of a scene are not quite uniform
        reach = 2.0 * (ends[1] - ends[0]) / 2.0
        assert wrong[fact].value == pytest.approx(wrong[fact].chance, abs=reach)


def test_only_what_the_inputs_tell_is_scored() -> None:
    assert cells(Task((Input("audio"),), ("image",)), perfect, 5).keys() == {"material", "size"}
    told = (Input("text", ("shape", "colour"), "image"), Input("audio"))
    found = cells(Task(told, ("image",)), perfect, 5)
    assert found.keys() == {"shape", "colour", "material", "size"}


def test_captions_are_judged_by_what_they_state() -> None:
    def half(scene: bounce.Scene, other: bounce.Scene, output: str) -> Reading:
        facts = {fact: scene.facts[fact] for fact in ("material", "size", "shape")}
        facts["tempo"] = other.facts["tempo"]
        del facts["size"]
        return Reading(facts)

    found = cells(Task((Input("audio"),), ("text",)), half)
    assert found["parses"].value == 1.0
    assert found["adds"].value == 1.0  # nobody hears a shape
    share = found["tempo"].value
    assert share is not None
    assert found["precision"].value == pytest.approx((1.0 + share) / 2.0)
    assert found["recall"].value == pytest.approx((1.0 + share) / 3.0)
    assert found["size"].value == 0.0


def test_precision_is_as_sure_as_the_captions_that_state_something_are_many() -> None:
    said = iter(range(100))

    def seldom(scene: bounce.Scene, other: bounce.Scene, output: str) -> Reading:
        del other, output
        return Reading({"material": scene.facts["material"]} if next(said) < 3 else {})

    found = cells(Task((Input("audio"),), ("text",)), seldom, 100)
    assert (found["precision"].value, found["precision"].n) == (1.0, 3)
    assert found["precision"].ci95 == wilson_interval(3, 3)
    assert found["recall"].n == 100


def test_captions_that_say_nothing_have_no_precision() -> None:
    found = cells(Task((Input("audio"),), ("text",)), lambda *_: Reading({}, words="?"), 5)
    assert found["parses"].value == 0.0
    assert found["recall"].value == 0.0
    assert (found["precision"].value, found["precision"].ci95) == (None, None)


def test_impacts_of_two_outputs_are_compared_with_each_other() -> None:
    task = Task((TEXT,), ("video", "audio"))

    def together(scene: bounce.Scene, other: bounce.Scene, output: str) -> Reading:
        late = 0.04 if output == "audio" else 0.0
        first = perfect(scene, other, output)
        assert first.impacts_s is not None
        return Reading(first.facts, tuple(0.9 * t + late for t in first.impacts_s))

    joint = cells(task, together)
    assert joint["video+audio impacts"].value == 1.0  # though neither is where the scene has it
    assert joint["video+audio offset_ms"].value == pytest.approx(40.0)
    apart = cells(task, blind)
    chance = joint["video+audio impacts"].chance
    assert chance is not None
    assert chance < 0.45
    assert apart["video+audio impacts"].value == pytest.approx(chance, abs=0.06)
    assert joint["video+audio same tempo"].value == 1.0
    assert apart["video+audio same tempo"].value == pytest.approx(1 / 3, abs=0.1)


def test_a_caption_agrees_where_it_tells() -> None:
    task = Task((TEXT,), ("image", "text"))

    def terse(scene: bounce.Scene, other: bounce.Scene, output: str) -> Reading:
        if output == "image":  # a picture in which nobody finds a ball
            facts = perfect(scene, other, output).facts
            return Reading({f: v for f, v in facts.items() if v != "ball"})
        facts = {"shape": scene.facts["shape"], "material": other.facts["material"]}
        return Reading(facts if scene.facts["size"] == "small" else {"colour": "red"})

    found = cells(task, terse)
    small = found["image+text same shape"].n
    assert 0 < small < 200
    assert found["image+text same colour"].n == 400 - small
    assert "image+text same size" not in found
    balls = found["image+text same shape"].value
    assert balls is not None
    assert balls == pytest.approx(0.8, abs=0.15)  # what was not found agrees with nothing
    assert found["image+text same material"].value == pytest.approx(0.25, abs=0.12)


def test_impacts_of_one_output_are_compared_with_what_was_kept() -> None:
    kept = Task((Input("video"),), ("audio",), kept=("video",))
    assert cells(kept, perfect)["impacts"].value == 1.0
    assert cells(kept, perfect)["offset_ms"].value == 0.0
    assert "impacts" not in cells(Task((Input("video"),), ("audio",)), perfect, 5)
    assert "impacts" in cells(Task((), ("audio",), path="codec"), perfect, 5)


def test_silence_pairs_with_nothing() -> None:
    kept = Task((Input("video"),), ("audio",), kept=("video",))
    found = cells(kept, lambda *_: Reading({}, ()), 5)
    assert found["impacts"].value == 0.0
    assert (found["offset_ms"].value, found["offset_ms"].n) == (None, 0)


def test_no_records_no_cells() -> None:
    assert score(Task((TEXT,), ("image",)), TERMS, "trained", []) == []


@pytest.mark.parametrize("follows", ["text", "other image"])
def test_obedience_counts_whose_facts_are_shown_where_two_prompts_differ(follows: str) -> None:
    scenes = [bounce.sample_scene(i) for i in range(40)]
    task = Task(
        (TEXT, Input("image", other=True)), ("image",), measures=("obedience",), weights=(0.5, 0.5)
    )
    records = []
    for i, scene in enumerate(scenes):
        shown = scenes[partner(i)] if follows == "other image" else scene
        readings = {"image": perfect(shown, shown, "image")}
        records.append(Record(i, dict(scene.facts), None, readings))
    found = {c.fact: c for c in score(task, TERMS, "trained", records)}
    differ = sum(s.facts["size"] != scenes[partner(i)].facts["size"] for i, s in enumerate(scenes))
    other = {"text": "other image", "other image": "text"}[follows]
    assert (found[f"size of {follows}"].value, found[f"size of {other}"].value) == (1.0, 0.0)
    assert found[f"size of {follows}"].n == differ < len(scenes)
    assert not any(fact.startswith("tempo") for fact in found)  # no picture shows it
    assert {found[f"size of {who}"].source for who in (follows, other)} == {follows, other}
    assert found[f"size of {follows}"].ci95 == wilson_interval(differ // 2, differ // 2)


def test_obedience_is_as_sure_as_its_pairs_are_many() -> None:
    scenes = [bounce.sample_scene(i) for i in range(80)]
    task = Task((TEXT, Input("image", other=True)), ("image",), measures=("obedience",))
    records = []
    for i, scene in enumerate(scenes):
        obeys = i // 2 % 3 > 0  # the two of a pair alike, as they often are
        shown = scene if obeys else scenes[partner(i)]
        reading = {"image": perfect(shown, shown, "image")}
        records.append(Record(i, dict(scene.facts), None, reading))
    found = {c.fact: c for c in score(task, TERMS, "trained", records)}["colour of text"]
    pairs = [
        i for i in range(40) if scenes[2 * i].facts["colour"] != scenes[2 * i + 1].facts["colour"]
    ]
    assert found.n == 2 * len(pairs)
    assert found.ci95 == bootstrap_interval([float(i % 3 > 0) for i in pairs])


def test_sources_say_which_prompt_is_not_heard() -> None:
    def deaf(scene: bounce.Scene, other: bounce.Scene, output: str) -> Reading:
        heard = {"material": other.facts["material"], "size": other.facts["size"]}
        return Reading({**perfect(scene, other, output).facts, **heard})

    written = Input("text", ("shape", "colour", "background"), "image")
    task = Task((written, Input("audio")), ("image",), measures=("sources",))
    found = cells(task, deaf)
    assert found.keys() == {"told by text alone", "told by audio alone"}
    text, audio = found.values()
    assert (text.value, text.source) == (1.0, "text")
    assert audio.chance == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert audio.value == pytest.approx(audio.chance, abs=0.08)
    whole = Task((TEXT, Input("audio")), ("image",), measures=("sources",))
    assert cells(whole, perfect, 5).keys() == {
        "told by text",
        "told by text alone",
        "told by audio",
    }
    assert not cells(Task((TEXT,), ("image",), measures=("sources",)), perfect, 5)
