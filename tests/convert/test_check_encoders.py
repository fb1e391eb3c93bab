"""The goldens of CLIP and CLAP are met."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codi.config import ConfigError
from codi.convert.check_encoders import CHECKS, clip_text_config, clip_vision_config
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


@needs_goldens
def test_the_activation_of_clip_is_the_one_that_is_told() -> None:
    golden = Golden(GOLDENS / "j_clip.json")
    assert _verdicts(golden) == {"pass"}
    for about in (golden.about, golden.about["text_config"]):  # of both towers, or of one
        about["hidden_act"] = "gelu"
        assert clip_text_config(golden.about).activation == "gelu"
        assert clip_vision_config(golden.about).activation == "gelu"
        assert "fail" in _verdicts(golden)
    golden.about["text_config"]["hidden_act"] = "quick_gelu"
    assert clip_text_config(golden.about).activation == "quick_gelu"
    golden.about["hidden_act"] = "relu"
    with pytest.raises(ConfigError, match="hidden_act = 'relu'; CLIP here has quick_gelu or gelu"):
        clip_vision_config(golden.about)


@needs_goldens
def test_a_clip_of_one_frame_is_no_picture() -> None:
    """It is what a clip of the same frame again and again is (see the encoder's own tests)."""
    golden = Golden(GOLDENS / "j_clip.json")
    (check,) = [check for check in CHECKS if check.recognises(golden.about)]
    frame = golden["pixels_video"][:, :1]
    golden.tensors["pixels_video"] = frame.expand(-1, 6, -1, -1, -1)
    still = check.run(golden)
    golden.tensors["pixels_video"] = frame
    for name in ("out_video", "out_video_pooled"):
        value = still[name]
        assert isinstance(value, torch.Tensor)
        golden.tensors[name] = value
    assert _verdicts(golden) == {"pass"}
    golden.tensors["pixels_image"] = frame[:, 0]
    picture = check.run(golden)["out_image"]
    assert isinstance(picture, torch.Tensor)
    assert not torch.allclose(picture, golden["out_video"], atol=1e-2)


def _verdicts(golden: Golden) -> set[str]:
    return {line.verdict for line in verify(golden, CHECKS)}


@needs_goldens
def test_the_stations_of_clap_say_how_much_of_them_is_kept() -> None:
    golden = Golden(GOLDENS / "j2_clap_audio.json")
    tensors, resampled = golden.tensors, "resampled48k_first4000"
    tensors["resampled48k_first1500"] = tensors.pop(resampled)[:, :1500]
    tensors["logmel_first32frames"] = tensors["logmel_first64frames"][:, :, :32]
    golden.about["tensors"] = {}
    assert _verdicts(golden) == {"pass"}
    tensors["logmel"] = tensors["logmel_first64frames"]  # whole, by its name
    lines = {line.tensor: line for line in verify(golden, CHECKS)}
    assert "shape" in lines["logmel"].note


@needs_goldens
def test_the_sounds_of_clap_say_their_rate() -> None:
    golden = Golden(GOLDENS / "j2_clap_audio.json")
    golden.tensors["wav8k"] = golden.tensors.pop("wav16k")
    (check,) = [check for check in CHECKS if check.recognises(golden.about)]
    slower = check.run(golden)["resampled48k_first4000"]
    assert isinstance(slower, torch.Tensor)
    expected = golden.expected("resampled48k_first4000")
    assert not torch.allclose(slower, expected, atol=1e-2)
    del golden.tensors["wav8k"]
    with pytest.raises(ConfigError, match="has no waveforms; name them by their rate"):
        check.run(golden)


@pytest.mark.parametrize("about", [{}, {"config": {}}, {"text_config": {}}])
def test_other_goldens_are_left_alone(about: dict[str, Any]) -> None:
    assert not any(check.recognises(about) for check in CHECKS)
