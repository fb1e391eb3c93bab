"""`codi bench`: how long requests and training steps take, and how much computing they are."""

from __future__ import annotations

import argparse
from pathlib import Path

from codi.cli import (
    bench_generate,
    bench_growth,
    bench_memory,
    bench_sampling,
    bench_train,
    bench_unet,
)
from codi.cli.bench_report import add_model
from codi.cli.options import Formatter, resolve_device

SUMMARY = "measure speed, memory and operations"

_DESCRIPTION = """\
Measure what a model costs on this machine: requests from a cold process and from a warm one, the
operations of one evaluation, or the steps of training.

examples:
  codi bench generate --steps 20
  codi bench flops --model tiny
  codi bench train recipe-tiny-cpu
  codi bench memory --preset release
  codi bench sampling --samples 100
  codi bench growth recipe-tiny
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the kinds of measurement and their options."""
    parser.description = _DESCRIPTION
    kinds = parser.add_subparsers(title="what to measure", metavar="KIND", required=True)
    bench_generate.configure(kinds)
    flops = kinds.add_parser(
        "flops",
        formatter_class=Formatter,
        help="operations of one evaluation",
        description="Count one evaluation of each stream and of all together, and compare the time "
        "it takes with the speed of matrix multiplication measured in the same run.",
    )
    add_model(flops)
    flops.set_defaults(run=run_flops)
    bench_train.configure(kinds)
    bench_unet.configure(kinds)
    bench_memory.configure(kinds)
    bench_sampling.configure(kinds)
    bench_growth.configure(kinds)


def run_flops(arguments: argparse.Namespace) -> int:
    """Time one evaluation of every stream and of all together, and print a table."""
    from codi.benchmarks.evaluations import Setting, measure
    from codi.build import load_config
    from codi.cli.bench_unet import print_report

    config = load_config(_configuration(arguments.model))
    setting = Setting(tuple(config.generated), resolve_device(arguments.device), repeat=3)
    print_report(measure(config, setting), config, setting)
    return 0


def _configuration(model: str) -> str | Path:
    """Return what to read a model's configuration from: its weights' folder where it has one."""
    from codi.folders import SHIPPED

    return SHIPPED / model if (SHIPPED / model / "config.toml").is_file() else model
