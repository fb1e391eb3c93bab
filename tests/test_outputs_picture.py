"""examples/outputs_picture.py, which draws the README's picture of outputs, still does."""

from __future__ import annotations

import runpy
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[1] / "examples" / "outputs_picture.py"


def test_the_picture_has_clips_sounds_and_pictures(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    script["main"](str(tmp_path / "outputs.png"), steps=1)
    with (
        Image.open(tmp_path / "outputs.png") as drawn,
        Image.open(SCRIPT.parents[1] / "docs" / "pictures" / "outputs.png") as shown,
    ):
        assert drawn.size == shown.size
        colours = drawn.getcolors(maxcolors=1 << 20)
        assert colours is not None
        assert len(colours) > 1000
