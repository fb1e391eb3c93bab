"""`codi bench sampling`: how few evaluations of the networks keep what a model says."""

from __future__ import annotations

import argparse
from pathlib import Path

from codi.cli.bench_report import add_model
from codi.cli.options import Formatter, named_path, whole_number
from codi.config import ConfigError

_DESCRIPTION = """\
Make the same items of the suite `bounce` with many settings of sampling, read the facts back with
the world's own oracle, and compare them, item by item, with what the reference number of steps
makes. All samplers and spacings are tried at all numbers of steps; intervals of guidance and reuse
with the model's own sampler. Writes sampling.md, sampling.json and sampling.svg.

examples:
  codi bench sampling --samples 100 --out sampling
  codi bench sampling --samplers ddim dpmpp_2m unipc --steps 20 12 8 --reuse 2 3
  codi bench sampling --intervals 200-1000 --tasks text-to-image
"""


def configure(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the measurement and its options."""
    parser = kinds.add_parser(
        "sampling",
        formatter_class=Formatter,
        help="facts against evaluations",
        description=_DESCRIPTION,
    )
    parser.set_defaults(run=run)
    add_model(parser)
    parser.add_argument(
        "--samples", type=whole_number(1), default=100, metavar="N",
        help="a task (default: 100; of fewer than 381, no setting surely stays within a point)",
    )  # fmt: skip
    parser.add_argument(
        "--tasks", nargs="+", default=["text-to-image", "text-to-audio"], metavar="T",
        help="of the suite bounce (default: text-to-image text-to-audio)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", nargs="+", type=whole_number(1), default=[20, 15, 12, 10, 8, 6], metavar="N",
        help="numbers of steps (default: 20 15 12 10 8 6)",
    )  # fmt: skip
    parser.add_argument(
        "--reference", type=whole_number(1), default=50, metavar="N",
        help="steps of the model's own sampler that all are compared with (default: 50)",
    )  # fmt: skip
    parser.add_argument(
        "--samplers", nargs="+", default=[], metavar="NAME", help="default: the model's own"
    )
    parser.add_argument(
        "--spacings", nargs="+", default=[], metavar="NAME", help="default: the model's own"
    )
    parser.add_argument(
        "--intervals", nargs="+", default=[], metavar="LOW-HIGH", help="of guided steps t, of 1000"
    )
    parser.add_argument(
        "--reuse", nargs="+", type=whole_number(2), default=[], metavar="N",
        help="evaluations that share the inside of the networks",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=whole_number(1), default=16, metavar="N", help="samples at once"
    )
    parser.add_argument(
        "--out", type=named_path, default=Path("sampling"), metavar="DIR",
        help="folder of the report (default: sampling)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace) -> int:
    """Do `codi bench sampling`."""
    from codi.cli.progress import Display, print_line
    from codi.diffusion import SAMPLERS, SPACINGS
    from codi.evaluation.sampling import Grid, compare_sampling, suggestion

    _check("sampler", arguments.samplers, SAMPLERS)
    _check("spacing", arguments.spacings, SPACINGS)
    grid = Grid(
        tuple(arguments.steps),
        tuple(arguments.samplers),
        tuple(arguments.spacings),
        tuple(_interval(text) for text in arguments.intervals),
        tuple(arguments.reuse),
        arguments.reference,
    )
    with Display(arguments.quiet) as display:
        outcomes = compare_sampling(
            arguments.model,
            grid,
            out=arguments.out,
            samples=arguments.samples,
            tasks=arguments.tasks,
            batch=arguments.batch,
            device=arguments.device,
            progress=display.count,
        )
    for line in suggestion(outcomes):
        if line:
            print_line(line)
    print_line(f"{arguments.out}: sampling.md, sampling.json, sampling.svg")
    return 0


def _check(what: str, given: list[str], known: object) -> None:
    from collections.abc import Mapping

    from codi.config import unknown

    assert isinstance(known, Mapping)
    for name in given:
        if name not in known:
            raise ConfigError(unknown(what, name, known))


def _interval(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not (dash and low.isdigit() and high.isdigit() and int(low) <= int(high)):
        raise ConfigError(f"--intervals {text}: expected LOW-HIGH, such as 200-1000")
    return int(low), int(high)
