"""The suite of digits on toy shards, and its judges on the real ones where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from codi.config import ConfigError
from codi.data.source import data_root
from codi.evaluation.digits import DigitsSuite
from codi.evaluation.suites import MEDIA, Input
from tests.evaluation.toy_digits import write_shard
from tests.small import small_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "digits-train.tar", 60, seed=0)
    write_shard(folder / "digits-val.tar", 20, seed=1)
    return folder


@pytest.fixture(scope="module")
def suite(root: Path, tmp_path_factory: pytest.TempPathFactory) -> DigitsSuite:
    return DigitsSuite(small_config(), root, tmp_path_factory.mktemp("cache"), steps=60)


def accuracy(suite: DigitsSuite, modality: str) -> float:
    count = suite.count("held-out")
    items = [suite.medium("held-out", i, modality) for i in range(count)]
    readings = suite.read(modality, items)
    truths = [suite.truth("held-out", i).facts for i in range(count)]
    return float(np.mean([r.facts == t for r, t in zip(readings, truths, strict=True)]))


@pytest.mark.parametrize("modality", MEDIA)
def test_true_media_are_recognised(suite: DigitsSuite, modality: str) -> None:
    assert suite.count("held-out") == 20
    assert accuracy(suite, modality) > 0.8


def test_judges_are_trained_once(suite: DigitsSuite) -> None:
    suite.read("image", [suite.medium("held-out", 0, "image")])
    again = DigitsSuite(suite.config, suite.root, suite.cache, progress=_never)
    assert again.read("image", [suite.medium("held-out", 3, "image")])


def _never(what: str, total: int) -> range:
    raise AssertionError(f"{what} was not kept")


def test_prompts_describe_what_they_are_shown_by(suite: DigitsSuite) -> None:
    for index in range(10):
        said = suite.caption("held-out", index, Input("text", shown_by="audio"))
        digit = suite.truth("held-out", index).facts["digit"]
        assert said in (f"a voice says {digit}", f"the digit {digit}")


def test_items_are_drawn_by_the_seed_though_shards_are_sorted(suite: DigitsSuite) -> None:
    def digits(seed: int) -> list[str]:
        drawn = DigitsSuite(suite.config, suite.root, suite.cache, seed=seed)
        return [drawn.truth("held-out", i).facts["digit"] for i in range(20)]

    assert digits(1) == digits(1)
    assert digits(1) != digits(2)
    assert sorted(digits(1)) == sorted(digits(2))


def test_a_caption_of_several_digits_says_none(suite: DigitsSuite) -> None:
    readings = suite.read("text", ["one or two", "The digit three!", "hello"])
    assert [reading.facts for reading in readings] == [{}, {"digit": "three"}, {}]


def test_test_shards_alone_are_judged_by_the_judges_that_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODI_DATA", raising=False)
    write_shard(tmp_path / "digits-test.tar", 10, seed=1)
    suite = DigitsSuite(small_config(), tmp_path, tmp_path, progress=_never)
    assert suite.note.endswith(
        "drawing of the test shards, none of them trained on; judges that ship"
    )
    assert {judge["name"] for judge in suite.described["extractors"].values()} == {
        "PictureClassifier",
        "VoiceClassifier",
    }
    assert accuracy(suite, "image") > 0.2  # printed ones: the judge learned handwriting
    write_shard(tmp_path / "digits-val.tar", 5, seed=1)
    write_shard(tmp_path / "digits-train.tar", 5, seed=1)
    taught = DigitsSuite(small_config(), tmp_path, tmp_path)
    assert taught.note.endswith("drawing of the validation shards, none of them trained on")
    assert taught.count("held-out") == 5
    assert taught.fingerprint != suite.fingerprint
    with pytest.raises(ConfigError, match=r"no digits-train.* audio with sample_rate_hz 16000"):
        DigitsSuite(small_config("modalities.audio.media.sample_rate_hz=8000"), None, tmp_path)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digits-val"):
        DigitsSuite(small_config(), tmp_path, tmp_path).count("held-out")


@pytest.mark.slow
@pytest.mark.skipif("CODI_DATA" not in os.environ, reason="CODI_DATA does not say where data are")
@pytest.mark.parametrize("modality", ["image", "audio"])
def test_real_digits_are_recognised(tmp_path: Path, modality: str) -> None:
    suite = DigitsSuite(small_config(), data_root(), tmp_path)
    assert accuracy(suite, modality) > 0.9
