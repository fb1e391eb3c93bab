"""Models of random weights: complete, of the size they stand for, and usable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from codi.config import ConfigError
from codi.convert.dummy import _write_byte_pairs, dummy_config, write_dummy
from codi.pipeline import load
from codi.weights import missing_parts
from tests.small import NAMES, PRESET, SENTENCE


def test_a_dummy_is_a_whole_model_that_generates(tmp_path: Path) -> None:
    config = dummy_config(str(PRESET), tmp_path)
    parts = config.parts()
    assert list(write_dummy(config, tmp_path, parts, torch.float16)) == parts
    assert missing_parts(tmp_path, config) == []
    made = load(tmp_path, device="cpu").generate([("text", SENTENCE)], NAMES, steps=1)
    assert list(made) == list(NAMES)
    assert list(write_dummy(config, tmp_path, parts, torch.float16)) == []  # nothing to do again


def test_a_disk_that_is_too_small_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**29))
    config = dummy_config(str(PRESET), tmp_path)
    with pytest.raises(ConfigError, match=r"0\.5 GiB are free there; give another folder"):
        list(write_dummy(config, tmp_path, config.parts(), torch.float16))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "last"), [(700, ()), (700, ("<a>", "<b>")), (300, ("<b>",))])
def test_a_made_up_vocabulary_has_its_size_and_its_last_words(
    tmp_path: Path, size: int, last: tuple[str, ...]
) -> None:
    _write_byte_pairs(tmp_path, size, last)
    numbers = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(numbers.values()) == list(range(size))
    assert [numbers[word] for word in last] == list(range(size - len(last), size))


def test_published_tokenizers_are_made_up_for_the_kinds_that_need_them(tmp_path: Path) -> None:
    config = dummy_config("release", tmp_path)
    for role, name, setting in (
        ("encoders", "text", "tokenizer"),
        ("codecs", "text", "decoder_tokenizer"),
    ):
        folder = Path(getattr(config.part(role, name), setting))
        assert {path.name for path in folder.iterdir()} == {"vocab.json", "merges.txt"}
