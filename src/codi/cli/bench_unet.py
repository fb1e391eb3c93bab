"""`codi bench unet`: one evaluation of diffusers with random weights, at any size."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from codi.cli.bench_report import add_json, machine, peak_line, print_json
from codi.cli.options import Formatter, add_device, resolve_device, whole_number
from codi.config import ConfigError, unknown

if TYPE_CHECKING:
    from codi.benchmarks.evaluations import Report, Setting
    from codi.build import ModelConfig

_DESCRIPTION = """\
Build the diffusers of a preset with random weights and time one evaluation of each stream, and of
all of them together, in turns. Operations and the weights that are read are counted on shapes; the
speed of matrix products and of memory is measured in the same run.

examples:
  codi bench unet --preset stable-diffusion --against diffusers
  codi bench unet --preset release --stream video --frames 8
  codi bench unet --preset release --stream text --json
  codi bench unet --preset tiny --stream video audio --batch 2
"""


def configure(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the measurement and its options."""
    unet = kinds.add_parser(
        "unet",
        formatter_class=Formatter,
        help="seconds of one evaluation, at any size",
        description=_DESCRIPTION,
    )
    unet.add_argument(
        "--preset", default="release", metavar="P",
        help="a preset, or the TOML file of a model (default: release)",
    )  # fmt: skip
    unet.add_argument(
        "--stream", nargs="+", default=["image"], metavar="M",
        help="modalities; several are timed together as well (default: image)",
    )  # fmt: skip
    unet.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="(default: float32)"
    )
    unet.add_argument("--frames", type=whole_number(2), metavar="N", help="frames of a clip")
    unet.add_argument(
        "--size", type=whole_number(8), metavar="N", help="height and width of square latents"
    )
    unet.add_argument(
        "--tokens", type=whole_number(1), metavar="N",
        help="tokens of the prompt (default: those of the model's prompts)",
    )  # fmt: skip
    unet.add_argument(
        "--batch", type=whole_number(1), default=1, metavar="N",
        help="samples at once; guidance makes two of one (default: 1)",
    )  # fmt: skip
    unet.add_argument(
        "--repeat", type=whole_number(1), default=5, metavar="N",
        help="turns, of which the median counts (default: 5)",
    )  # fmt: skip
    unet.add_argument("--compile", action="store_true", help="translate the networks first")
    unet.add_argument(
        "--prepared",
        action="store_true",
        help="compute what depends on the prompt and the step alone before, as requests do (on a "
        "GPU with --plain and without --compile)",
    )
    unet.add_argument(
        "--plain",
        action="store_true",
        help="leave weights as they are trained, and record nothing on a GPU",
    )
    unet.add_argument(
        "--against", choices=("diffusers",), help="time the first stream's peer as well"
    )
    add_json(unet)
    add_device(unet)
    unet.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do `codi bench unet`."""
    import torch

    from codi.benchmarks.evaluations import Setting, measure, resized
    from codi.build import load_config

    config = resized(load_config(arguments.preset), arguments.frames, arguments.size)
    for name in arguments.stream:
        if name not in config.generated:
            given = f"; {name} is only a prompt of it" if name in config.modalities else ""
            said = unknown(f"stream of {config.name}:", name, config.generated)
            raise ConfigError(f"--stream: {said}{given}")
    setting = Setting(
        tuple(dict.fromkeys(arguments.stream)),
        resolve_device(arguments.device),
        getattr(torch, arguments.dtype),
        arguments.batch,
        arguments.tokens,
        packed=not arguments.plain,
        compiled=arguments.compile,
        prepared=arguments.prepared,
        against_peer=arguments.against is not None,
        repeat=arguments.repeat,
    )
    report = measure(config, setting)
    if arguments.json:
        import dataclasses

        on = machine(setting.dtype, setting.device)
        numbers = {"model": config.name, "machine": on, "prepared": setting.prepared}
        print_json(numbers | dataclasses.asdict(report))
    else:
        print_report(report, config, setting)
    return 0


def print_report(report: Report, config: ModelConfig, setting: Setting) -> None:
    """Print a table, and a line for every comparison."""
    from rich.table import Table

    from codi.cli.progress import print_line, print_table

    title = f"one evaluation of model {config.name}, batch {setting.batch}, without guidance"
    title += ", prompt and step prepared" if setting.prepared else ""
    table = Table("", "s", "GFLOP", "of peak", "weights read", "of reading speed", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for done in report.evaluations:
        table.add_row(
            done.name,
            f"{done.seconds:.4f}",
            f"{done.flops / 1e9:.2f}",
            f"{done.of_peak:.0%}",
            f"{done.bytes_read / 1e6:.1f} MB",
            f"{done.of_reading:.0%}",
        )
    print_table(table)
    if report.of_parts is not None:
        print_line(f"environment parts: {report.environment:.1%} of all together")
        print_line(
            f"together: {report.of_parts:.3f} of the parts alone and the counted operations of the "
            "environment"
        )
    if report.of_peer is not None:
        print_line(f"diffusers takes {report.of_peer:.2f} of our time")
        print_line(f"its numbers differ by {report.difference:.1e} of their deviation at most")
    print_line(peak_line(report.peak, machine(setting.dtype, setting.device)))
    print_line(f"memory here is read at {report.reading / 1e9:.1f} GB/s")
