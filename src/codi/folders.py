"""Where what ships with the package lies. Knows no file in it, and never imports torch."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent

PRESETS = _PACKAGE / "presets"
"""Folder of the presets, recipes and vocabularies."""

SHIPPED = _PACKAGE / "weights"
"""Folder of the models whose trained weights ship with the package."""
