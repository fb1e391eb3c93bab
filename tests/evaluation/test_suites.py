"""The tables of tasks: their names, what inputs tell, and that what is asked can be measured."""

from __future__ import annotations

import pytest

from codi.evaluation.bounce import BounceSuite
from codi.evaluation.digits import DigitsSuite
from codi.evaluation.scoring import MEASURES
from codi.evaluation.suites import MEDIA, Input, Suite, Task, Terms

SUITES: list[type[Suite]] = [BounceSuite, DigitsSuite]
PROMISED = (
    "text+audio-to-image",
    "text+audio-to-video",
    "text+image-to-audio",
    "audio+image-to-text",
    "video+audio-to-text",
    "text-to-video+audio",
    "text-to-video+audio-apart",
    "image-to-video+audio",
    "text-to-image+text+audio",
    "audio-to-video+text",
    "text-to-text+image+video+audio",
    "keep-video-to-audio",
    "keep-audio-to-video",
    *(f"{given}-to-{made}" for given in MEDIA for made in MEDIA),
)


@pytest.mark.parametrize("suite", SUITES)
def test_names_are_unique_and_every_task_measures_something(suite: type[Suite]) -> None:
    names = [task.name for task in suite.tasks]
    assert len(set(names)) == len(names)
    for task in suite.tasks:
        assert set(task.measures) <= MEASURES.keys()
        told = set(suite.terms.told(task))
        assert all(told & set(suite.terms.shows[output]) for output in task.outputs)
        assert {given.modality for given in task.inputs} >= set(task.kept)


def test_bounce_has_every_task_that_is_promised() -> None:
    assert set(PROMISED) <= {task.name for task in BounceSuite.tasks}


def test_inputs_tell_together_what_each_tells() -> None:
    terms = Terms(
        {"shape": "ab", "size": "cd", "tempo": "ef"},
        {
            "image": ("shape", "size"),
            "audio": ("size", "tempo"),
            "text": ("shape", "size", "tempo"),
        },
    )
    image, audio = Input("image"), Input("audio")
    assert terms.told(Task((image,), ("text",))) == ("shape", "size")
    assert terms.told(Task((audio, image), ("text",))) == ("shape", "size", "tempo")
    assert terms.told(Task((Input("text", ("tempo",), "audio"),), ("audio",))) == ("tempo",)
    assert terms.told(Task((Input("text", shown_by="image"),), ("audio",))) == ("shape", "size")
    assert terms.told(Task((), ("image",), path="true")) == ("shape", "size", "tempo")
