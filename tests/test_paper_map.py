"""docs/paper-map.md: what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = re.findall(
    r"`([a-z_/-]+\.(?:py|toml))`(?:: ((?:`[\w.-]+`(?:, )?)+))?",
    (ROOT / "docs" / "paper-map.md").read_text(encoding="utf-8"),
)


def test_the_map_names_places() -> None:
    assert len(PLACES) > 40


@pytest.mark.parametrize(("file", "names"), sorted(set(PLACES)))
def test_what_the_map_names_exists(file: str, names: str) -> None:
    text = (ROOT / "src" / "codi" / file).read_text(encoding="utf-8")
    for name in re.findall(r"`([\w.-]+)`", names):
        for part in name.split("."):
            assert re.search(rf"(?:def |class |\[|\"){re.escape(part)}\b|^{re.escape(part)}\b",
                             text, re.MULTILINE), f"{file} has no {name}"  # fmt: skip
