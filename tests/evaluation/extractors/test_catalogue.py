"""Extractors open when needed; without a source each says which file it wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
