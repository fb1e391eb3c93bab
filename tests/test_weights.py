"""Models in folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from codi import weights
from codi.build import Model
from codi.config import ConfigError
from codi.weights import find_model, load_model, missing_parts, part_files, save_model
from tests.small import small_model


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


def test_half_precision_is_half_the_size(model: Model, folder: Path, tmp_path: Path) -> None:
    save_model(model, tmp_path, torch.float16)

    def size(of: Path) -> int:
        return sum(path.stat().st_size for path in of.rglob("*.safetensors"))

    assert size(tmp_path) < 0.6 * size(folder)
    loaded = load_model(tmp_path).state_dict()
    for key, value in model.state_dict().items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value.half().float())


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


def test_missing_parts_are_listed(folder: Path, tmp_path: Path, model: Model) -> None:
    save_model(small_model(parts=["codecs.image"]), tmp_path)
    assert missing_parts(tmp_path, model.config) == [
        part for part in model.config.parts() if part != "codecs.image"
    ]
