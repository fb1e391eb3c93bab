"""Where the facts about the released CoDi lie: golden files, and the layouts of its checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

RELEASED = Path(
    os.environ.get("CODI_RELEASED", Path(__file__).resolve().parents[2] / "shared" / "release")
)
GOLDENS = RELEASED / "golden"
LAYOUT = RELEASED / "layout"
needs_goldens = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason="needs the golden files of the released CoDi"
)
