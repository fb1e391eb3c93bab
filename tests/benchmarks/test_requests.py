"""Requests: what is counted is every evaluation and the decoding, and clocks read every turn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codi.benchmarks.counting import counted, performed
from codi.benchmarks.networks import STEP, context, model_of_shapes, step
from codi.benchmarks.requests import request_flops, timed
from codi.pipeline import Pipeline, load


@pytest.fixture(scope="module")
def plain() -> Pipeline:
    """Return the shipped model, some of whose layers for sound are large enough to be packed."""
    return load("tiny", device="cpu", offload=True)


def test_a_step_more_is_a_guided_evaluation_more(plain: Pipeline) -> None:
    model = model_of_shapes(plain.config)
    diffuser: Any = model.part("diffusers", "audio")
    shape, prompt = plain.config.modality("audio").latent, context(plain.config, 2, device="meta")
    z_t = torch.zeros(2, *shape, device="meta")
    known = diffuser.prepare(prompt, [STEP]).at(STEP)
    evaluation = counted(lambda: diffuser(z_t, step(2, "meta"), known))
    prepared = counted(lambda: diffuser.prepare(prompt, [1, 2]))
    evaluation += prepared - counted(lambda: diffuser.prepare(prompt, [1]))
    decoding = performed(lambda: plain.decode({"audio": torch.zeros(1, *shape)}))
    one, two = (request_flops(plain, ("audio",), steps) for steps in (1, 2))
    assert two - one == evaluation > 0
    assert one > evaluation + decoding


def test_a_step_takes_a_part_of_the_request(plain: Pipeline) -> None:
    [text] = timed(plain, [("text",)], steps=3, repeat=2)
    assert text.step_s is not None
    assert 0 < 2 * text.step_s < text.seconds
    [text] = timed(plain, [("text",)], steps=1, repeat=1)
    assert text.step_s is None
    assert text.of_parts is None
