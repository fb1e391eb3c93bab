"""What is asked of a model and what it makes: conditions, sampling settings, generated media.

It knows neither models nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Condition:
    """One prompt: a modality, its file or object, and its weight in the mixture."""

    modality: str
    source: Any
    weight: float = 1.0


Conditions = Sequence[Condition | tuple[Any, ...]]


@dataclass
class Generation(Mapping[str, list[Any]]):
    """What was generated: a list of objects for each modality, one for each seed.

    Attributes:
        notes: what was cut, resampled or cropped on the way in, a line each.
        settings: everything needed to make it again.
    """

    outputs: dict[str, list[Any]]
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> list[Any]:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def _repr_html_(self) -> str:
        """Show all samples in a notebook."""
        from html import escape

        rows = []
        for name, items in self.outputs.items():
            shown = [
                item._repr_html_() if hasattr(item, "_repr_html_") else _picture_html(item, escape)
                for item in items
            ]
            rows.append(f"<h4>{escape(name)}</h4>" + " ".join(shown))
        return "".join(rows)


def _picture_html(item: Any, escape: Callable[[str], str]) -> str:
    """Return an inline picture for what can draw itself as PNG, the text itself otherwise."""
    if hasattr(item, "_repr_png_"):
        import base64

        encoded = base64.b64encode(item._repr_png_()).decode()
        return f'<img src="data:image/png;base64,{encoded}">'
    return f"<p>{escape(str(item))}</p>"


@dataclass(frozen=True)
class SamplingSettings:
    """How latents are sampled; None takes the model's own default."""

    sampler: str | None = None
    steps: int | None = None
    guidance: float | Mapping[str, float] | None = None
    eta: float | None = None
    spacing: str | None = None
    guidance_interval: tuple[int, int] | None = None
    reuse: int | None = None
