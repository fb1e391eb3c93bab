"""`codi bench`: how long requests and training steps take, and how much computing they are."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from codi.cli import bench_growth, bench_memory, bench_sampling, bench_unet
from codi.cli.options import Formatter, add_device, resolve_device, whole_number
from codi.cli.plugins import OPTION

if TYPE_CHECKING:
    from codi.pipeline import Pipeline
    from codi.training.recipe import Stage

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
_PROMPT = "a red ball bounces"
_JOINT: tuple[tuple[str, ...], ...] = (("video", "audio"),)
"""What is timed together, beside each modality alone and all that the model can make."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the kinds of measurement and their options."""
    parser.description = _DESCRIPTION
    kinds = parser.add_subparsers(title="what to measure", metavar="KIND", required=True)
    generate = kinds.add_parser(
        "generate",
        formatter_class=Formatter,
        help="seconds and memory of requests",
        description="Time requests from text, alone and together, in cold and warm processes.",
    )
    _add_model(generate)
    generate.add_argument(
        "--steps", type=whole_number(1), metavar="N", help="denoising steps (default: the model's)"
    )
    generate.add_argument(
        "--repeat", type=whole_number(1), default=3, metavar="N",
        help="turns of warm requests, of which the median counts (default: 3)",
    )  # fmt: skip
    generate.add_argument("--no-cold", action="store_true", help="leave out cold processes")
    generate.set_defaults(run=run_generate)
    flops = kinds.add_parser(
        "flops",
        formatter_class=Formatter,
        help="operations of one evaluation",
        description="Count one evaluation of each stream and of all together, and compare the time "
        "it takes with the speed of matrix multiplication measured in the same run.",
    )
    _add_model(flops)
    flops.set_defaults(run=run_flops)
    train = kinds.add_parser(
        "train",
        formatter_class=Formatter,
        help="seconds of training steps",
        description="Take a few steps of every stage of a recipe, on few data.",
    )
    train.add_argument("recipe", metavar="RECIPE", help="a shipped recipe, or a TOML file")
    train.add_argument("--data", metavar="DIR", help="folder of data sets")
    train.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    add_device(train)
    train.set_defaults(run=run_train)
    bench_unet.configure(kinds)
    bench_memory.configure(kinds)
    bench_sampling.configure(kinds)
    bench_growth.configure(kinds)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="tiny", metavar="M", help="a shipped model or a folder (default: tiny)"
    )
    add_device(parser)


# Requests -----------------------------------------------------------------------------------------


def run_generate(arguments: argparse.Namespace) -> int:
    """Time requests and print a table."""
    from rich.table import Table

    from codi.benchmarks.machine import in_turns
    from codi.cli.progress import print_line, print_table
    from codi.pipeline import load

    arguments.device = resolve_device(arguments.device)
    pipeline = load(arguments.model, device=arguments.device)
    can = pipeline.config.generated
    requests: list[tuple[str, ...]] = [(name,) for name in can]
    requests += [to for to in (*_JOINT, tuple(can)) if len(to) > 1 and set(to) <= set(can)]
    requests = list(dict.fromkeys(requests))
    table = Table(
        "text to", "cold process", "warm", "peak memory", title=f"model {arguments.model}"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    warm = in_turns(
        {to: partial(_request, pipeline, to, arguments.steps) for to in requests},
        arguments.repeat,
        arguments.device,
    )
    for to in requests:
        cold = ("", "") if arguments.no_cold else _cold(arguments, to)
        table.add_row(" + ".join(to), cold[0], f"{statistics.median(warm[to]):.2f} s", cold[1])
    print_table(table)
    for to in requests:
        if len(to) > 1:
            turns = zip(warm[to], *(warm[(name,)] for name in to), strict=True)
            ratio = statistics.median(joint / sum(parts) for joint, *parts in turns)
            print_line(f"{' + '.join(to)}: {ratio:.2f} of the sum of its parts alone")
    if arguments.no_cold:
        print_line(f"peak memory of this process: {_peak_mib():.0f} MiB")
    return 0


def _request(pipeline: Pipeline, to: Sequence[str], steps: int | None) -> None:
    pipeline.generate([("text", _PROMPT)], to, steps=steps)


def _cold(arguments: argparse.Namespace, to: Sequence[str]) -> tuple[str, str]:
    """Return seconds and peak memory of `codi generate` in a process of its own, as text."""
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory(prefix="codi-") as folder:
        words = ["generate", "--text", _PROMPT, "--to", *to, "--out", folder, "--quiet"]
        words += ["--model", arguments.model, "--device", arguments.device]
        words += ["--steps", str(arguments.steps)] if arguments.steps else []
        words += [word for plugin in arguments.plugins for word in (OPTION, plugin)]
        began_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *words], capture_output=True, text=True, check=False
        )
        taken_s = time.perf_counter() - began_s
    if done.returncode:
        from codi.config import ConfigError

        raise ConfigError(f"codi {' '.join(words)}: {done.stderr.strip()[-200:]}")
    return f"{taken_s:.2f} s", f"{float(done.stdout.split()[-1]):.0f} MiB"


_CHILD = """
import sys
from codi.cli import main
from codi.cli.bench import _peak_mib
code = main(sys.argv[1:])
print(_peak_mib())
sys.exit(code)
"""


def _peak_mib() -> float:
    """Return the most memory that this program has held, in MiB.

    Linux counts anew for every program; what `getrusage` tells there includes the process that
    started it, when that was the larger one.
    """
    import resource

    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [x for x in status.read_text().splitlines() if x.startswith("VmHWM:")]
        return float(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# Operations ---------------------------------------------------------------------------------------


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
    from codi.weights import SHIPPED

    return SHIPPED / model if (SHIPPED / model / "config.toml").is_file() else model


# Training -----------------------------------------------------------------------------------------


def run_train(arguments: argparse.Namespace) -> int:
    """Time training steps and print a table."""
    import torch
    from rich.table import Table

    from codi.benchmarks.machine import matrix_peak
    from codi.cli.plan import Planner, measured
    from codi.cli.progress import Display, print_line, print_table
    from codi.training.recipe import load_recipe

    recipe = load_recipe(arguments.recipe)
    device = resolve_device(arguments.device)
    with Display() as display:
        times = measured(recipe, arguments.data, device, arguments.bf16, display)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    peak = matrix_peak(device, dtype=dtype)
    table = Table("stage", "ms a step", "samples a second", "share of peak", title=recipe.name)
    for column in table.columns[1:]:
        column.justify = "right"
    planner = Planner(recipe)
    for stage in recipe.stage:
        if stage.name in times:
            taken_s = times[stage.name]
            plan = planner.plan(stage)
            table.add_row(
                stage.name,
                f"{taken_s * 1e3:.0f}",
                f"{_samples(stage) / taken_s:.1f}",
                f"{plan.flops / taken_s / peak:.0%}",
            )
    print_table(table)
    name = str(dtype).removeprefix("torch.")
    print_line(f"matrix multiplication here: {peak / 1e9:.1f} GFLOP/s ({name}, {device})")
    return 0


def _samples(stage: Stage) -> float:
    """Return how many samples a step of a stage has in the mean over its objectives."""
    shares = sum(objective.share for objective in stage.objectives)
    drawn = sum(objective.share * stage.size(objective) for objective in stage.objectives)
    return drawn / shares * stage.accumulate
