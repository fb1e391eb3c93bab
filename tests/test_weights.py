"""Models in folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from codi import weights
from codi.build import Model, ModelConfig, load_config
from codi.config import ConfigError
from codi.encoders.clap import ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig
from codi.nn.precision import HeldParameter
from codi.weights import (
    find_model,
    load_model,
    missing_parts,
    open_part,
    part_files,
    save_model,
    save_part,
)
from tests.small import small_config, small_model


@pytest.fixture(scope="module")
def model() -> Model:
    return small_model()


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(model, folder)
    return folder


def _same(first: Model, second: Model) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_what_is_saved_is_loaded_bit_for_bit(model: Model, folder: Path) -> None:
    loaded = load_model(folder)
    assert _same(loaded, model)
    assert loaded.config == model.config
    assert missing_parts(folder, model.config) == []


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_saved_files_have_the_permissions_of_the_umask(
    model: Model, tmp_path: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        save_part(model.part("codecs", "text"), tmp_path, "codecs.text")
    finally:
        os.umask(before)
    [file] = part_files(tmp_path, "codecs.text")
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask


def test_half_precision_is_half_the_size(model: Model, folder: Path, tmp_path: Path) -> None:
    save_model(model, tmp_path, torch.float16)

    def size(of: Path) -> int:
        return sum(path.stat().st_size for path in of.rglob("*.safetensors"))

    assert size(tmp_path) < 0.6 * size(folder)
    loaded = load_model(tmp_path).state_dict()
    for key, value in model.state_dict().items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value.half().float())


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_narrow_weights_computed_wide_are_the_rounded_model_exactly(
    model: Model, tmp_path: Path, stored: torch.dtype
) -> None:
    save_model(model, tmp_path, stored)
    rounded = load_model(tmp_path)
    z, t = torch.randn(2, 4, 3, 4, 4), torch.tensor([7, 900])
    context, beside = torch.randn(2, 1, 32), torch.randn(2, 8, 16)
    part = "diffusers.vision"
    narrow = open_part(model.config, tmp_path, part, dtype=stored, compute_dtype=torch.float32)
    with torch.no_grad():
        expected = rounded.role("diffusers")["vision"](z, t, context, beside)
        assert torch.equal(narrow(z, t, context, beside), expected)
    held = [p for p in narrow.parameters() if isinstance(p, HeldParameter)]
    assert sum(p.numel() for p in held) > 0.9 * sum(p.numel() for p in narrow.parameters())
    assert all(p.element_size() == 2 for p in held)


def test_a_part_over_the_limit_is_split(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PIECE_BYTES", 100_000)
    save_model(model, tmp_path)
    pieces = part_files(tmp_path, "codecs.image")
    assert [path.name for path in pieces[:2]] == ["codec-000.safetensors", "codec-001.safetensors"]
    assert all(path.stat().st_size < 200_000 for path in pieces)
    assert _same(load_model(tmp_path), model)


def test_saving_again_leaves_no_stale_pieces(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(weights, "PIECE_BYTES", 100_000)
        save_model(model, tmp_path)
    save_model(model, tmp_path)
    assert [path.name for path in (tmp_path / "image").glob("codec*")] == ["codec.safetensors"]
    assert _same(load_model(tmp_path), model)


def test_only_the_parts_asked_for_are_read(folder: Path) -> None:
    model = load_model(folder, ["encoders.text"])
    assert set(model.role("encoders")) == {"text"}
    assert not model.role("codecs")


def _damaged(folder: Path, tmp_path: Path, change: str) -> Path:
    """Copy the text encoder, with one thing wrong with its file."""
    file = tmp_path / "text" / "encoder.safetensors"
    file.parent.mkdir()
    (tmp_path / "config.toml").write_bytes((folder / "config.toml").read_bytes())
    tensors: dict[str, Tensor] = load_file(folder / "text" / "encoder.safetensors")
    if change == "missing":
        del tensors["mean"]
    elif change == "unused":
        tensors["extra"] = torch.zeros(1)
    elif change == "shape":
        tensors["mean"] = torch.zeros(5)
    save_file(tensors, file)
    if change == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif change == "noise":
        file.write_bytes(b"\xff" * 1000)
    elif change == "gone":
        file.unlink()
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "does not fit: mean: missing"),
        ("unused", "does not fit: extra: not used by the model"),
        ("shape", r"mean: \(5,\) in the file, \(32,\) in the model"),
        ("cut", "damaged or unreadable"),
        ("noise", "damaged or unreadable"),
        ("gone", "no such file; the model in .* lacks 'encoders.text'"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(
    folder: Path, tmp_path: Path, change: str, message: str
) -> None:
    file = _damaged(folder, tmp_path, change)
    with pytest.raises(ConfigError, match=message) as caught:
        load_model(tmp_path, ["encoders.text"])
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_an_unknown_model_says_what_works() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'nowhere'.*a folder with a config.toml"):
        find_model("nowhere")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paper", r"'paper' is a preset without weights; train it .* or convert .*--model paper\)"),
        ("recipe-tiny", "recipe-tiny is a recipe; codi train recipe-tiny --out DIR makes its"),
    ],
)
def test_a_preset_without_weights_says_what_brings_them(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_model(name)


def test_the_folder_of_a_run_says_where_its_model_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.toml").write_bytes((folder / "config.toml").read_bytes())
    with pytest.raises(ConfigError) as caught:
        find_model(tmp_path)
    assert str(caught.value) == f"{tmp_path} is a run's folder; its model is {tmp_path / 'model'}"
    assert find_model(tmp_path / "model") == tmp_path / "model"


def test_missing_parts_are_listed(folder: Path, tmp_path: Path, model: Model) -> None:
    save_model(small_model(parts=["codecs.image"]), tmp_path)
    assert missing_parts(tmp_path, model.config) == [
        part for part in model.config.parts() if part != "codecs.image"
    ]


# --- opening ---


@pytest.mark.parametrize("part", small_config().parts())
def test_an_opened_part_is_the_loaded_one(folder: Path, part: str) -> None:
    role, name = part.split(".", 1)
    opened = open_part(load_config(folder), folder, part)
    loaded = load_model(folder, [part]).role(role)[name]
    assert not any(t.is_meta for t in (*opened.parameters(), *opened.buffers()))
    for kind in ("named_parameters", "named_buffers"):
        one, other = (dict(getattr(module, kind)()) for module in (opened, loaded))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not opened.training


def test_changing_an_opened_part_leaves_its_file_as_it_was(folder: Path) -> None:
    opened = open_part(load_config(folder), folder, "diffusers.audio")
    file = part_files(folder, "diffusers.audio")[0]
    before = file.read_bytes()
    with torch.no_grad():
        next(opened.parameters()).fill_(1.0)
    assert file.read_bytes() == before


def test_another_type_is_converted(folder: Path, tmp_path: Path) -> None:
    save_model(load_model(folder), tmp_path, torch.float16)
    for dtype in (torch.float32, torch.bfloat16):
        opened = open_part(load_config(tmp_path), tmp_path, "codecs.audio", dtype=dtype)
        tensors = [t for t in (*opened.parameters(), *opened.buffers()) if t.is_floating_point()]
        assert {tensor.dtype for tensor in tensors} == {dtype}


def test_a_constant_that_needs_memory_is_made_for_real(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Part(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.register_buffer("drawn", torch.rand(2), persistent=False)

    config = load_config(folder)
    save_part(Part(), tmp_path, "encoders.text")
    monkeypatch.setattr(ModelConfig, "part", lambda *_: SimpleNamespace(build=Part))
    opened = open_part(config, tmp_path, "encoders.text")
    assert not opened.get_buffer("drawn").is_meta


@pytest.mark.parametrize(
    "config",
    [
        ClipTextConfig(12, 30, 8, 16, 2, 2, unit_context=True),
        ClipVisionConfig(12, 8, 4, 16, 2, 2, temporal_blocks=True, keeps_unused=True),
        ClapAudioConfig(12, channels=8, depths=(1, 1), heads=(1, 2), picture=128),
    ],
)
def test_published_towers_keep_the_constants_that_no_file_holds(
    config: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="needs codi[external]")
    built = config.build()
    save_part(built, tmp_path, "encoders.text")
    monkeypatch.setattr(ModelConfig, "part", lambda *_: config)
    opened = open_part(load_config(folder), tmp_path, "encoders.text")
    for kind in ("named_parameters", "named_buffers"):
        one, other = (dict(getattr(module, kind)()) for module in (opened, built))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


MEASURED = """
import sys, threading, time
from pathlib import Path
import torch
from codi.build import load_config
from codi.weights import open_part

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(l.split()[1] for l in lines if l.startswith("RssAnon")))

def peak_of(folder, dtype):
    before = peak = anonymous()
    done = threading.Event()
    def watch():
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.005)
    watcher = threading.Thread(target=watch)
    watcher.start()
    part = open_part(load_config(folder), Path(folder), "encoders.image", dtype=dtype)
    done.set()
    watcher.join()
    size = sum(p.nbytes for p in part.parameters())
    print(size, max(peak, anonymous()) - before)

torch.zeros(10) + 1
peak_of(sys.argv[1], getattr(torch, sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's own accounts")
@pytest.mark.parametrize(
    ("stored", "wanted", "most"),
    [("float32", "float32", 0.1), ("float16", "float32", 1.3), ("float32", "bfloat16", 1.3)],
)
def test_weights_never_exist_twice(tmp_path: Path, stored: str, wanted: str, most: float) -> None:
    sizes = ("encoders.image.width=1024", "encoders.image.layers=6")
    part = "encoders.image"
    save_model(small_model(*sizes, parts=[part]), tmp_path, getattr(torch, stored))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path), wanted],
        check=True,
        capture_output=True,
        text=True,
    )
    size, peak = map(int, done.stdout.split())
    assert size > (2e8 if wanted == "float32" else 1e8)
    assert peak < most * size, f"{peak / size:.2f} of the part's own bytes"


@pytest.mark.parametrize("model", [3, None, ["tiny"]])
def test_a_model_is_a_name_or_a_folder(model: Any) -> None:
    with pytest.raises(ConfigError, match="model: expected a name or a folder, got"):
        find_model(model)
