"""Weights of a pipeline: read when a request needs them, dropped, packed, held narrow."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import codi
from codi.build import Model
from codi.cli.options import resolve_device
from codi.config import ConfigError
from codi.pipeline import Generation, Pipeline, SamplingSettings, load
from codi.weights import find_device, save_model
from tests.small import (
    NAMES,
    SENTENCE,
    objects,
)


def _loaded(pipeline: Pipeline) -> set[str]:
    parts = pipeline.config.parts()
    return {p for p in parts if p.split(".")[1] in pipeline.model.role(p.split(".")[0])}


@pytest.mark.parametrize(
    ("prompt", "to", "keep", "parts"),
    [
        ("text", ["image"], [], {"encoders.text", "diffusers.vision", "codecs.image"}),
        ("audio", ["text"], [], {"encoders.audio", "diffusers.text", "codecs.text"}),
        (
            "text",
            ["video", "audio"],
            [],
            {
                "encoders.text",
                "diffusers.vision",
                "diffusers.audio",
                "environments.vision",
                "environments.audio",
                "codecs.image",
                "codecs.audio",
            },
        ),
        (
            "text",
            ["audio"],
            ["video"],
            {
                "encoders.text",
                "encoders.video",
                "diffusers.audio",
                "environments.vision",
                "environments.audio",
                "codecs.image",
                "codecs.audio",
            },
        ),
    ],
)
def test_a_request_loads_the_parts_it_uses_and_no_other(
    folder: Path, prompt: str, to: list[str], keep: list[str], parts: set[str]
) -> None:
    pipeline, given = load(folder, device="cpu"), objects()
    assert _loaded(pipeline) == set()
    pipeline.generate([(prompt, given[prompt])], to, keep={k: given[k] for k in keep}, steps=1)
    assert _loaded(pipeline) == parts


def test_a_loaded_model_makes_what_the_saved_one_made(pipeline: Pipeline, folder: Path) -> None:
    one, other = (
        p.generate([("text", SENTENCE)], ["audio"], steps=2)["audio"][0].samples
        for p in (pipeline, codi.load(folder, device="cpu"))
    )
    # Mapped tensors begin where the file has them, and some sums depend on the alignment.
    np.testing.assert_allclose(one, other, atol=1e-6)


def _everything(pipeline: Pipeline, given: dict[str, Any]) -> Generation:
    return pipeline.generate(
        [("text", SENTENCE), ("image", given["image"])],
        ["text", "image", "video"],
        keep={"audio": given["audio"]},
        negative=[("text", "a star")],
        seeds=[3, 4, 5],
        batch=2,
        steps=1,
    )


def _levels_apart(one: Any, other: Any) -> int:
    """Return by how many levels of 255 two pictures or clips differ at most."""
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def test_offloading_changes_no_output_and_leaves_no_part(folder: Path) -> None:
    given = objects()
    kept, offloaded = (load(folder, device="cpu", offload=flag) for flag in (False, True))
    expected, found = (_everything(pipeline, given) for pipeline in (kept, offloaded))
    assert _loaded(kept)
    assert _loaded(offloaded) == set()
    assert found["text"] == expected["text"]
    # What stays has its weights packed, whose products are rounded otherwise.
    for one, other in zip(found["image"], expected["image"], strict=True):
        assert _levels_apart(one, other) <= 1
    for one, other in zip(found["video"], expected["video"], strict=True):
        assert _levels_apart(one.frames, other.frames) <= 1
    again = _everything(offloaded, given)
    assert np.array_equal(again["video"][2].frames, found["video"][2].frames)


def test_parts_are_dropped_between_the_stations(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load(folder, device="cpu", offload=True)
    present: dict[str, set[str]] = {}

    def watched(station: str) -> Any:
        original = getattr(pipeline, station)

        def call(*arguments: Any, **settings: Any) -> Any:
            result = original(*arguments, **settings)
            present[station] = {part.partition(".")[0] for part in _loaded(pipeline)}
            return result

        return call

    for station in ("sample", "decode"):
        monkeypatch.setattr(pipeline, station, watched(station))
    pipeline.generate([("text", SENTENCE)], ["image", "audio"], steps=1)
    assert present == {"sample": {"diffusers", "environments"}, "decode": {"codecs"}}


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("role", ["diffuser", "codec"])
def test_what_is_missing_is_said_before_anything_is_done(
    folder: Path, tmp_path: Path, role: str, offload: bool
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "audio" / f"{role}.safetensors").unlink()
    pipeline = load(tmp_path / "model", device="cpu", offload=offload)
    lacks = rf"no such file; the model in .* lacks '{role}s.audio'"
    with pytest.raises(ConfigError, match=lacks):
        pipeline.generate([("text", SENTENCE)], ["audio"])
    assert _loaded(pipeline) == set()


def test_a_model_in_memory_cannot_be_offloaded(model: Model) -> None:
    with pytest.raises(ConfigError, match="give a folder"):
        Pipeline(model.config, model=model, offload=True)


# A name that nobody knows, shapes alone, backends that are plugins, and a name of old.
NO_DEVICES = ("abacus", "meta", "hpu", "privateuseone", "mkldnn", "ipu", "")


@pytest.mark.parametrize("find", [find_device, resolve_device, lambda name: load(device=name)])
@pytest.mark.parametrize("name", NO_DEVICES)
def test_a_device_that_is_not_there_is_one_error_and_no_warning(
    find: Callable[[str], Any], name: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        find(name)
    assert str(caught.value) == f"device {name!r} is not available here; use cpu"


def test_a_device_that_works_keeps_its_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*_: Any, **__: Any) -> torch.Tensor:
        warnings.warn("this GPU is newer than this torch", UserWarning, stacklevel=1)
        return torch.ones(1)

    assert str(find_device("cpu")) == resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.warns(UserWarning, match="newer than this torch"):
        assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float23"}, "unknown dtype 'float23'; did you mean 'float32'"),
        ({"compute_dtype": "fp17", "device": "cpu"}, "unknown compute_dtype 'fp17'"),
        (
            {"dtype": "fp16", "compute_dtype": "fp16", "device": "cpu"},
            "float16 is hundreds of times slower",
        ),
    ],
)
def test_an_impossible_dtype_is_an_error(
    folder: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(folder, **settings)


def test_packed_weights_make_the_same(pipeline: Pipeline, folder: Path) -> None:
    opened = load(folder, device="cpu")
    settings = SamplingSettings(steps=2)
    expected, made = (
        p.sample(p.context([]), ["audio", "text"], [1], settings=settings)
        for p in (pipeline, opened)
    )
    assert "conv_in.weight" not in opened.model.part("environments", "audio").state_dict()
    for name, z in made.items():
        torch.testing.assert_close(z, expected[name], atol=1e-3, rtol=1e-3)


def test_narrow_weights_are_not_compiled(folder: Path) -> None:
    with pytest.raises(ConfigError, match="are not compiled here; give --dtype float32"):
        load(folder, device="cpu", dtype="float16", compute_dtype="float32", compile=True)


def test_compiled_networks_reuse_nothing(folder: Path) -> None:
    with pytest.raises(ConfigError, match="reuse = 2 computes other layers at every step"):
        load(folder, device="cpu", compile=True).generate(to=["text"], steps=1, reuse=2)


def test_compiling_without_a_compiler_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="leave --compile out"):
        load(folder, device="cpu", compile=True).generate(to=["text"], steps=1)


def test_half_precision_generates(folder: Path) -> None:
    made = load(folder, device="cpu", dtype="bfloat16").generate(
        [("text", SENTENCE)], ["text", "audio"], negative=[("text", "a star")], steps=1
    )
    assert np.isfinite(made["audio"][0].samples).all()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_narrow_weights_make_what_the_rounded_model_makes(
    model: Model, tmp_path: Path, dtype: str
) -> None:
    save_model(model, tmp_path, {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype])
    rounded, narrow = (
        load(tmp_path, device="cpu", dtype=held, compute_dtype="fp32") for held in ("fp32", dtype)
    )
    made = [p.generate([("text", SENTENCE)], NAMES, steps=1) for p in (rounded, narrow)]
    assert made[0]["text"] == made[1]["text"]
    # Weights in the type that they are computed in are packed: products are rounded otherwise.
    assert _levels_apart(made[0]["video"][0].frames, made[1]["video"][0].frames) <= 1
    one, other = (m["audio"][0].samples for m in made)
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert made[1].settings["compute_dtype"] == "float32"
