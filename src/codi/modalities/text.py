"""Text: sentences. Its array is a string, and its tensor a list of strings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from codi import media


@dataclass(frozen=True)
class TextMedia:
    """Sentences of any length; networks read the first `length` tokens of their own tokenizer."""

    def load(self, source: Any) -> tuple[str, list[str]]:
        """Return clean text of a string, or of a text file given as a path object."""
        return media.load_text(source)

    def to_array(self, item: str) -> str:
        """Return the string."""
        return item

    def to_tensor(self, arrays: Sequence[str]) -> list[str]:
        """Return B strings."""
        return [str(text) for text in arrays]

    def from_tensor(self, x: Sequence[str]) -> list[str]:
        """Return B strings."""
        return list(x)

    def with_others(self, item: str, others: Mapping[str, Any]) -> str:
        """Return the object: it takes nothing of others."""
        del others
        return item

    def save(self, item: str, path: Path) -> None:
        """Write UTF-8 text."""
        media.save_text(path, item)

    def picture(self, item: str) -> np.ndarray:
        """Return the words, black on white."""
        lines = textwrap.wrap(item, 40) or [""]
        page = Image.new("RGB", (256, 14 * len(lines) + 4), "white")
        ImageDraw.Draw(page).multiline_text((4, 2), "\n".join(lines), fill="black", spacing=2)
        return np.asarray(page, dtype=np.uint8)
