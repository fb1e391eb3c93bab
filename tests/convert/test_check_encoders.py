"""The goldens of CLIP and CLAP are met."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codi.convert.check_encoders import CHECKS
from codi.convert.golden import Golden
from codi.convert.verifying import verify
from tests.released import GOLDENS, needs_goldens

VISION, POOLED = ("image", "video"), ("", "_pooled")

pytest.importorskip("transformers", reason="needs codi[external]")


@needs_goldens
@pytest.mark.parametrize("name", ["j_clip", "j2_clap_audio"])
def test_goldens_are_met(name: str) -> None:
    golden = Golden(GOLDENS / f"{name}.json")
    (check,) = [check for check in CHECKS if check.recognises(golden.about)]
    found = check.run(golden)
    inputs = {"tokens", "pixels_image", "pixels_video", "wav16k"}
    assert found.keys() == {n for n in golden.tensors if not n.startswith("w.")} - inputs
    for output, tensor in found.items():
        assert isinstance(tensor, torch.Tensor)
        expected = golden[output]
        assert tensor.shape == expected.shape
        error = (tensor - expected).abs().max() / expected.std()
        assert error <= check.tolerance, f"{output}: {error:.1e}"


@needs_goldens
@pytest.mark.parametrize(
    ("without", "made"),
    [
        (("vision_", "visual_", "pixels", "out_image", "out_video"), {"out_text"}),
        (("text_", "tokens", "out_text"), {f"out_{m}{p}" for m in VISION for p in POOLED}),
        (
            ("temporal", "tokens", "text_", "pixels_video", "out_text", "out_video"),
            {"out_image", "out_image_pooled"},
        ),
    ],
)
def test_one_tower_of_clip_is_checked_alone(without: tuple[str, ...], made: set[str]) -> None:
    golden = Golden(GOLDENS / "j_clip.json")
    for key in list(golden.tensors):
        if key.removeprefix("w.model.").startswith(without):
            del golden.tensors[key]
    lines = list(verify(golden, CHECKS))
    assert {line.tensor for line in lines if line.verdict == "pass"} == made
    assert {line.verdict for line in lines} == {"pass", "not checked"}


@pytest.mark.parametrize("about", [{}, {"config": {}}, {"text_config": {}}])
def test_other_goldens_are_left_alone(about: dict[str, Any]) -> None:
    assert not any(check.recognises(about) for check in CHECKS)
