"""Any-to-any generation of text, image, video and audio by composable diffusion.

    import codi

    pipeline = codi.load("tiny")
    made = pipeline.generate([("text", "a red ball bounces")], to=["video", "audio"])
    made["video"][0].save("ball.mp4")

Names are imported when they are first used, so that `import codi` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# OpenMP reads these once, when torch is imported. Threads that spin while they wait make small
# models many times slower beside another program that computes; threads that sleep at once are slow
# to wake on an idle machine. A thousand turns are some ten microseconds (docs/performance.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from codi.modalities.base import Modality, register
    from codi.pipeline import Condition, Pipeline, load

__all__ = ["Condition", "Modality", "Pipeline", "__version__", "load", "register"]

_HOMES = {
    "Condition": "codi.pipeline",
    "Modality": "codi.modalities.base",
    "Pipeline": "codi.pipeline",
    "load": "codi.pipeline",
    "register": "codi.modalities.base",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
