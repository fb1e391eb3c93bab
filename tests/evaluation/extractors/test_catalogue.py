"""Extractors open when needed; without a source each says which file it wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codi.config import ConfigError
from codi.evaluation.extractors.catalogue import EXTRACTORS, Extractors
from codi.evaluation.extractors.own import OwnExtractor
from codi.pipeline import Pipeline, load
from codi.weights import save_model
from tests.small import NAMES, objects, small_model


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    model = small_model()
    return Pipeline(model.config, model=model)


def test_the_models_own_encoders_need_no_file(pipeline: Pipeline) -> None:
    extractors = Extractors({"inception": "codi"}, pipeline)
    own = extractors["codi"]
    assert isinstance(own, OwnExtractor)
    assert extractors["inception"] is own
    given = objects()
    for name in NAMES:
        found = own(name, [given[name], given[name]])["features"]
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    assert len(own.identity["sha256"]) == 64


def test_frames_of_clips_are_pictures_of_their_own(pipeline: Pipeline) -> None:
    extractors = Extractors({"clip": "codi_frames"}, pipeline)
    clip = objects()["video"]
    frames = extractors["codi_frames"]("video", [clip, clip])["features"]
    assert frames.shape[:2] == (2, len(clip.frames))
    alone = extractors["codi"]("image", [Image.fromarray(clip.frames[1])])["features"]
    np.testing.assert_allclose(frames[1, 1], alone[0], atol=1e-5)
    assert extractors["clip"] is extractors["codi_frames"]
    with pytest.raises(ConfigError, match="knows no pictures that are frames of audio"):
        extractors["codi_frames"]("audio", [])


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_without_a_source_the_file_is_named(name: str, pipeline: Pipeline) -> None:
    extractors = Extractors({}, pipeline)
    assert str(extractors.lacking(name)).startswith(f"--extractors {name}=PATH, ")
    with pytest.raises(ConfigError, match=f"extractor {name}: no weights; give --extractors"):
        extractors[name]


def test_other_encoders_are_another_network(tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1):
        save_model(small_model(seed=seed), tmp_path / str(seed))
        extractors = [Extractors({}, load(tmp_path / str(seed)))["codi"] for _ in range(2)]
        extractors[1]("text", ["a ball"])  # whatever is loaded already
        assert extractors[0].identity == extractors[1].identity
        digests.add(extractors[0].digest)
    assert len(digests) == 2


def test_unknown_names_are_mended(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match="did you mean 'inception'"):
        Extractors({"inceptoin": "x"}, pipeline)
    with pytest.raises(ConfigError, match="did you mean 'clap'"):
        Extractors({}, pipeline).lacking("clap_")
    assert Extractors({"clip": "/nowhere"}, pipeline).lacking("clip") is None
