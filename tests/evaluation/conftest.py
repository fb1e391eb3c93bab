"""A small model on disk, which nobody changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from codi.weights import save_model
from tests.small import small_model, speaking


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(speaking(small_model()), folder)
    return folder
