"""The registry of modalities."""

from __future__ import annotations

import subprocess
import sys

import pytest

from codi.config import ConfigError
from codi.modalities import MediaType, Modality, base, modality, names, register


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test registers."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))


def test_the_four_modalities_of_the_paper_are_there() -> None:
    assert names() == ["text", "image", "video", "audio"]


@pytest.mark.parametrize("name", names())
def test_an_entry_says_what_the_command_line_lists(name: str) -> None:
    entry = modality(name)
    assert entry.name == name
    assert entry.summary
    assert entry.suffix.isalnum()


@pytest.mark.usefixtures("registry")
def test_a_modality_of_ones_own_is_one_call() -> None:
    entry = register(Modality("depth", "distances", "png", "codi.modalities.image:ImageMedia"))
    assert names()[-1] == "depth"
    assert modality("depth") is entry
    assert issubclass(entry.media_class(), MediaType)


@pytest.mark.usefixtures("registry")
def test_the_same_entry_may_be_registered_twice() -> None:
    entry = modality("audio")
    assert register(entry) is entry
    assert names().count("audio") == 1


@pytest.mark.usefixtures("registry")
def test_another_modality_of_the_same_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="'audio' is registered already; choose another name"):
        register(Modality("audio", "stereo sound", "wav", "codi.modalities.audio:AudioMedia"))


def test_an_unknown_modality_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown modality 'vidoe'; did you mean 'video'"):
        modality("vidoe")


def test_listing_modalities_imports_no_torch() -> None:
    check = "import codi.modalities, sys; codi.modalities.names(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
