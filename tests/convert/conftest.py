"""The toy layouts, known instead of the real ones; models and files of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from codi.build import Model
from codi.convert import layouts as registry
from tests.convert import toy


@pytest.fixture
def layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know the toy layouts only."""
    monkeypatch.setattr(registry, "LAYOUTS", toy.LAYOUTS)


@pytest.fixture(scope="session")
def toy_model() -> Model:
    """Return the parts that the toy layouts hold, with random weights."""
    return toy.trained("codecs.image", "diffusers.vision", "encoders.text", "codecs.audio")


@pytest.fixture(scope="session")
def single(toy_model: Model) -> dict[str, Tensor]:
    """Return the tensors of a toy single file."""
    return {
        **toy.foreign_state(toy_model, toy.PICTURES),
        **toy.foreign_state(toy_model, toy.VISION),
    }


@pytest.fixture(scope="session")
def toy_folder(toy_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in the toy folder's layout."""
    folder = tmp_path_factory.mktemp("toy-folder")
    for module in (toy.SENTENCES, *toy.SOUND):
        toy.write(folder / f"{module.file}.safetensors", toy.foreign_state(toy_model, module))
    return folder
