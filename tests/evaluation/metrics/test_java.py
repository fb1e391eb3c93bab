"""What Java programs answer is read; what is missing is named with where to get it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codi.config import ConfigError
from codi.evaluation.metrics import java


@pytest.fixture
def with_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: f"/usr/bin/{name}")


def test_without_java_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="install a Java runtime"):
        java.meteor_15(["a"], [["a"]], tmp_path)


@pytest.mark.usefixtures("with_java")
def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no meteor-1\.5\.jar .* pip install pycocoevalcap"):
        java.meteor_15(["a"], [["a"]], tmp_path)
    with pytest.raises(ConfigError, match=r"stanford-corenlp-3\.4\.1\.jar below a folder"):
        java.stanford_words(["a"], None)
    (tmp_path / "spice").mkdir()
    (tmp_path / "spice" / java.SPICE_JAR).touch()
    with pytest.raises(ConfigError, match=r"needs stanford-corenlp-3\.6\.0\.jar .*zip"):
        java.spice(["a"], [["a"]], tmp_path)


def test_spice_answers_come_in_the_order_of_the_questions() -> None:
    answers = [
        {"image_id": 1, "scores": {"All": {"f": 0.25}}},
        {"image_id": 0, "scores": {"All": {"f": "NaN"}}},
    ]
    np.testing.assert_allclose(java.spice_scores(answers), [0.0, 0.25])
    np.testing.assert_allclose(java.spider(np.array([1.0]), np.array([0.25])), [0.625])
