"""Suites find their data in one of several folders."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from codi.evaluation.items import WORLD
from codi.evaluation.opening import Opened, _holding
from codi.evaluation.suites import Suite


def test_the_folder_that_holds_a_data_set_is_taken(tmp_path: Path) -> None:
    roots = tuple(tmp_path / name for name in ("a", "b", "c"))
    assert _holding("audiocaps", roots) == roots[0]  # to be named in the error
    for root in roots[1:]:
        (root / "audiocaps").mkdir(parents=True)
        (root / "audiocaps" / "test.csv").touch()
    assert _holding("audiocaps", roots) == roots[1]
    assert _holding(WORLD, roots) == roots[0]
    assert _holding("audiocaps", ()) is None


@pytest.mark.parametrize(
    ("read", "said"), [({"codi", "clap"}, "reads clap, codi"), (set(), "reads none")]
)
def test_an_extractor_that_no_row_reads_is_told(read: set[str], said: str) -> None:
    suites = tuple(Mock(Suite, reads=frozenset(some)) for some in (read, ()))
    suites[0].name = "real/esc"
    opened = Opened(suites, {"noto": "no shards"}).telling_unread(["clap", "desync"])
    assert opened.left_out["--extractors desync"] == f"not read; suite real {said}"
    assert ("--extractors clap" in opened.left_out) is ("clap" not in read)
    assert opened.left_out["noto"] == "no shards"
