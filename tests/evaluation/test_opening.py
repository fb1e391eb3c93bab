"""Suites find their data in one of several folders."""

from __future__ import annotations

from pathlib import Path

from codi.evaluation.items import WORLD
from codi.evaluation.opening import _holding


def test_the_folder_that_holds_a_data_set_is_taken(tmp_path: Path) -> None:
    roots = tuple(tmp_path / name for name in ("a", "b", "c"))
    assert _holding("audiocaps", roots) == roots[0]  # to be named in the error
    for root in roots[1:]:
        (root / "audiocaps").mkdir(parents=True)
        (root / "audiocaps" / "test.csv").touch()
    assert _holding("audiocaps", roots) == roots[1]
    assert _holding(WORLD, roots) == roots[0]
    assert _holding("audiocaps", ()) is None
