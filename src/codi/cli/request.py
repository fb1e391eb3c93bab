"""What `codi generate` is asked for: its options, checked against each other.

It knows modalities by the registry alone, no model and no file.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codi.cli.options import named_path
from codi.cli.sampling import read_guidance, read_interval
from codi.config import ConfigError
from codi.generation import shares
from codi.modalities.base import Modality, modality, names

Source = str | Path
_MOST_SAMPLES = 100_000


@dataclass(frozen=True)
class Prompt:
    """A condition as it stands on the command line."""

    modality: str
    source: Source


@dataclass(frozen=True)
class Request:
    """What `codi generate` was asked for, free of contradictions.

    Attributes:
        weights: one for each condition, of mean 1, so that a kept stream, whose weight is 1, counts
            as much as an average condition.
    """

    conditions: tuple[Prompt, ...]
    weights: tuple[float, ...]
    negative: tuple[Prompt, ...]
    keep: dict[str, Source]
    to: tuple[str, ...]
    seeds: tuple[int, ...]
    guidance: float | dict[str, float] | None
    guidance_interval: tuple[int, int] | None


def source_type(entry: Modality) -> Callable[[str], Source]:
    """Return how a source is read: what is written is given literally, all else is a file."""
    return str if entry.is_caption else named_path


def read_request(arguments: argparse.Namespace) -> Request:
    """Check the options against each other.

    Raises:
        ConfigError: a contradiction, an unknown modality, or weights that do not fit.
    """
    conditions = tuple(arguments.conditions or ())
    keep = _read_keep(arguments.keep or ())
    to = _read_outputs(arguments.to or (), keep)
    if arguments.unconditional and (conditions or keep):
        given = conditions[0].modality if conditions else f"keep {next(iter(keep))}"
        raise ConfigError(f"--unconditional contradicts --{given}; leave one of them out")
    if arguments.num > _MOST_SAMPLES:
        raise ConfigError(f"--num {arguments.num}: at most {_MOST_SAMPLES} samples in one folder")
    if not (conditions or keep or arguments.unconditional):
        options = ", ".join(f"--{name}" for name in names())
        raise ConfigError(f"no condition: give {options} or --keep, or ask for --unconditional")
    return Request(
        conditions,
        _read_weights(arguments.weights, conditions, keep),
        tuple(arguments.negative or ()),
        keep,
        to,
        tuple(range(arguments.seed, arguments.seed + arguments.num)),
        read_guidance(arguments.guidance, to),
        read_interval(arguments.guidance_interval),
    )


def _read_outputs(given: Sequence[str], keep: Mapping[str, Source]) -> tuple[str, ...]:
    if not given:
        raise ConfigError(f"nothing to make: say --to, with any of {', '.join(names())}")
    for text in given:
        parts = re.split(r"[\s,;+]+", text.strip(" ,;+"))
        if len(parts) > 1 and all(part in names() for part in parts):
            raise ConfigError(f"--to {text}: put spaces between them: --to {' '.join(parts)}")
    to = tuple(dict.fromkeys(modality(name).name for name in given))
    for name in to:
        if name in keep:
            raise ConfigError(
                f"{name} is both in --to and in --keep; a kept stream is given and the others are "
                f"made to fit it, so leave {name} out of one of them"
            )
    return to


def _read_keep(given: Sequence[str]) -> dict[str, Source]:
    """Return the kept streams; what is written is a file where there is one of that name."""
    keep: dict[str, Source] = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals or not source:
            raise ConfigError(f"--keep {text}: expected MODALITY=FILE, such as video=silent.mp4")
        if name in keep:
            raise ConfigError(f"--keep {name}= is given twice; a stream is kept once")
        is_words = modality(name).is_caption and not is_file(source)
        if is_words and _looks_like_file(source):
            raise ConfigError(
                f"--keep {text}: no such file; check the path, or, if these are the words, put a "
                f'space behind them: --keep "{text} "'
            )
        keep[name] = source if is_words else Path(source)
    return keep


def _looks_like_file(text: str) -> bool:
    """Say whether words are more likely the name of a file.

    >>> [_looks_like_file(text) for text in ("notes.txt", "my/notes", "ball", "a red.txt", "2.5")]
    [True, True, False, False, False]
    """
    return bool(re.fullmatch(r"\S*([/\\]\S*|\.[A-Za-z]\w{1,7})", text))


def is_file(text: str) -> bool:
    """Say whether there is a file of this name."""
    try:
        return Path(text).is_file()
    except OSError:  # longer than a name can be: words
        return False


def _read_weights(
    given: Sequence[float] | None, conditions: Sequence[Prompt], keep: Mapping[str, Source]
) -> tuple[float, ...]:
    if given is None:
        return (1.0,) * len(conditions)
    shown = " ".join(f"{weight:g}" for weight in given)
    order = ", ".join(condition.modality for condition in conditions)
    if not conditions:
        raise ConfigError("--weights without conditions; give --text, --image ... or leave it out")
    kept = "; what is kept takes their mean" if keep else ""
    if len(given) != len(conditions):
        raise ConfigError(
            f"--weights {shown}: expected {len(conditions)} number(s), one for each condition in "
            f"the order given ({order}), got {len(given)}{kept}"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in given):
        raise ConfigError(f"--weights {shown}: expected numbers that are not negative")
    if not any(given):
        raise ConfigError(f"--weights {shown}: expected at least one number above 0")
    return tuple(share * len(given) for share in shares(given))
