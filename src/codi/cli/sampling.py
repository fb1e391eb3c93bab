"""The options of sampling, which several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from codi.cli.options import whole_number
from codi.config import ConfigError, unknown


def add_sampling(
    parser: argparse.ArgumentParser, default: str = "the model's own settings by default"
) -> argparse._ArgumentGroup:
    """Add the settings of `codi.pipeline.SamplingSettings`; return their group."""
    group = parser.add_argument_group(f"sampling ({default})")
    group.add_argument(
        "--steps", type=whole_number(1), metavar="N", help="denoising steps; more is slower, finer"
    )
    group.add_argument("--sampler", metavar="NAME", help="ddim, dpmpp_2m, unipc, euler, heun, ddpm")
    group.add_argument(
        "--spacing",
        metavar="NAME",
        help="of the steps: trailing, leading, ldm, linspace, karras (which the default model does "
        "not bear: it starts from pure noise)",
    )
    group.add_argument(
        "--eta",
        type=_share,
        metavar="E",
        help="fresh noise added at every step, from 0 (none: the same noise always gives the same "
        "sample whatever the steps) to 1 (all: mends more at many steps); for ddim and dpmpp_2m",
    )
    group.add_argument(
        "--guidance",
        nargs="+",
        metavar="G",
        help="how strongly the conditions are followed: one number, or image=3 audio=2.5",
    )
    group.add_argument(
        "--guidance-interval",
        nargs=2,
        type=whole_number(0),
        metavar=("LOW", "HIGH"),
        help="guide only the steps t from LOW to HIGH, of 1000; the others take half the time",
    )
    group.add_argument(
        "--reuse",
        type=whole_number(1),
        metavar="N",
        help="compute the inside of the diffusers at every N-th step only, and their outermost "
        "layers at each; 1 reuses nothing",
    )
    return group


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def read_guidance(
    given: Sequence[str] | None, to: Sequence[str]
) -> float | dict[str, float] | None:
    """Return the numbers of `--guidance`: one, or by modality; None where it is not given.

    Args:
        given: its words.
        to: modalities that are generated.

    Raises:
        ConfigError: no number, a modality twice, or one that is not generated.
    """
    if given is None:
        return None
    wanted = "expected one number, or numbers by modality such as image=3 audio=2.5"
    refusal = ConfigError(f"--guidance {' '.join(given)}: {wanted}")
    if len(given) == 1 and "=" not in given[0]:
        return _finite(given[0], refusal)
    scales: dict[str, float] = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not equals or name in scales:
            raise refusal
        if name not in to:
            raise ConfigError("--guidance: " + unknown("modality to guide:", name, to))
        scales[name] = _finite(number, refusal)
    return scales


def _finite(text: str, refusal: ConfigError) -> float:
    try:
        value = float(text)
    except ValueError:
        raise refusal from None
    if not math.isfinite(value):
        raise refusal
    return value


def read_interval(given: Sequence[int] | None) -> tuple[int, int] | None:
    """Return the two numbers of `--guidance-interval`; None where it is not given."""
    return None if given is None else (given[0], given[1])
