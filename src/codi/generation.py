"""What is asked of a model and what it makes: conditions, sampling settings, generated media.

It knows neither models nor files: here a request has the right types, and may still name what does
not exist.
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat


@dataclass(frozen=True)
class Condition:
    """One prompt: a modality, its file or object, and its weight in the mixture."""

    modality: str
    source: Any
    weight: float = 1.0


Conditions = Sequence[Condition | tuple[Any, ...]]


def shares(weights: Sequence[float]) -> list[float]:
    """Return weights divided by their sum, which may be larger than any number.

    Raises:
        ValueError: a weight is negative or not finite, or all are 0.

    >>> shares([1e308, 1e308])
    [0.5, 0.5]
    """
    largest = max(weights)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or largest == 0:
        raise ValueError(f"weights {list(weights)} must be finite, not negative, and not all 0")
    scaled = [weight / largest for weight in weights]
    return [weight / sum(scaled) for weight in scaled]


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
        style = "width: 256px; image-rendering: pixelated"  # as large as a clip is shown
        return f'<img style="{style}" src="data:image/png;base64,{encoded}">'
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


def read_argument(name: str, given: Any) -> Any:
    """Return an argument of `Pipeline.generate`, by its name, as the type it is worked with.

    Prompts become `Condition`s, collections lists, and numbers of NumPy and torch Python's. None
    stays None where it is the default.

    Raises:
        ValueError: it has another type, or a value that is wrong for every model.

    >>> read_argument("conditions", [("text", "a red ball")])
    [Condition(modality='text', source='a red ball', weight=1.0)]
    >>> read_argument("steps", "2")
    Traceback (most recent call last):
    ValueError: steps: expected a whole number such as 20, got '2'
    """
    read, expected = _ARGUMENTS[name]
    if given is None and name in _OPTIONAL:
        return None
    try:
        return read(given)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last is torch's
        shown = " ".join(reprlib.repr(given).split())
        raise ValueError(f"{name}: expected {expected}, got {shown}") from error


# The readers refuse with a bare error; `read_argument` has the words for it.


def _of(kind: Any, given: Any) -> Any:
    # To Python a bool is a number; to a caller it is a mistake.
    if not isinstance(given, kind) or isinstance(given, bool):
        raise TypeError
    return given


def _whole(given: Any, least: int | None = None) -> int:
    number = operator.index(given)
    if isinstance(given, bool) or (least is not None and number < least):
        raise ValueError
    return number


def _number(given: Any) -> float:
    return float(_of(SupportsFloat, given))


def _items(given: Any) -> list[Any]:
    if isinstance(given, str | bytes | Mapping):  # lists of letters and of keys are never meant
        raise TypeError
    return list(given)


def _condition(given: Any) -> Condition:
    made = given if isinstance(given, Condition) else Condition(*_of((list, tuple), given))
    _of(str, made.modality)
    _number(made.weight)
    return made


def _conditions(given: Any) -> list[Condition]:
    return [_condition(item) for item in _items(given)]


def _name(given: Any) -> str:
    return str(_of(str, given))


def _names(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else [_name(item) for item in _items(given)]


def _seeds(given: Any) -> list[int]:
    return [_whole(item, 0) for item in _items(given)]


def _streams(given: Any) -> dict[str, Any]:
    return {_name(name): source for name, source in _of(Mapping, given).items()}


def _scales(given: Any) -> float | dict[str, float]:
    if isinstance(given, Mapping):
        return {_name(name): _number(scale) for name, scale in given.items()}
    return _number(given)


def _share(given: Any) -> float:
    share = _number(given)
    if not 0 <= share <= 1:
        raise ValueError
    return share


def _interval(given: Any) -> tuple[int, int]:
    low, high = _items(given)
    return _whole(low), _whole(high)


def _function(given: Any) -> Any:
    if not callable(given):
        raise TypeError
    return given


_PROMPTS = 'pairs such as [("text", "a red ball")], with a weight or without'

_ARGUMENTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "conditions": (_conditions, _PROMPTS),
    "to": (_names, 'names of modalities such as ["image", "audio"]'),
    "seeds": (_seeds, "whole numbers from 0 up such as [0, 1, 2]"),
    "negative": (_conditions, _PROMPTS),
    "keep": (_streams, 'streams by modality such as {"video": "silent.mp4"}'),
    "sampler": (_name, 'a name such as "ddim"'),
    "steps": (_whole, "a whole number such as 20"),
    "guidance": (_scales, 'a number, or numbers by modality such as {"image": 3.0}'),
    "eta": (_share, "a number from 0 to 1"),
    "spacing": (_name, 'a name such as "trailing"'),
    "guidance_interval": (_interval, "the lowest and the highest step t such as (200, 800)"),
    "reuse": (_whole, "a whole number such as 2"),
    "callback": (_function, "a function of a step and the number of steps"),
    "batch": (lambda given: _whole(given, 1), "a whole number from 1 up"),
}
"""How each argument is read, and what is expected of it, in words."""

_OPTIONAL = _ARGUMENTS.keys() - {"conditions", "to", "seeds", "negative", "batch"}
"""Arguments that are None by default."""
