"""The goldens of CLIP and CLAP are met."""

from __future__ import annotations

from typing import Any

import pytest

from codi.convert.check_encoders import CHECKS
from codi.convert.golden import Golden
from tests.released import GOLDENS, needs_goldens

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
        expected = golden[output]
        assert tensor.shape == expected.shape
        error = (tensor - expected).abs().max() / expected.std()
        assert error <= check.tolerance, f"{output}: {error:.1e}"


@pytest.mark.parametrize("about", [{}, {"config": {}}, {"text_config": {}}])
def test_other_goldens_are_left_alone(about: dict[str, Any]) -> None:
    assert not any(check.recognises(about) for check in CHECKS)
