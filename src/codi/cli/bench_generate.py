"""`codi bench generate`: requests from text, in cold processes and in a warm one."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codi.cli.bench_report import (
    SPEED_COLUMNS,
    add_json,
    add_model,
    machine,
    peak_line,
    print_json,
    speed_cells,
    speed_numbers,
)
from codi.cli.options import Formatter, resolve_device, whole_number
from codi.cli.plugins import OPTION

if TYPE_CHECKING:
    from codi.benchmarks.requests import Timed

_DESCRIPTION = """\
Time requests from text, for each modality alone and for several together: in cold processes, and in
turns in a warm one. The operations of each whole request (prompt, every step, decoding) are counted
once more outside of the turns, on weights that are not packed; the speed of matrix products is
measured in the same run, before and after. There is no peer: no other library runs this model.
`codi bench unet --against diffusers` compares the network that they have in common.

examples:
  codi bench generate --steps 20
  codi bench generate --no-cold --repeat 5 --json
"""
_JOINT: tuple[tuple[str, ...], ...] = (("video", "audio"),)
"""What is timed together, beside each modality alone and all that the model can make."""


def configure(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the measurement and its options."""
    parser = kinds.add_parser(
        "generate",
        formatter_class=Formatter,
        help="seconds, operations and memory of requests",
        description=_DESCRIPTION,
    )
    add_model(parser)
    parser.add_argument(
        "--steps", type=whole_number(1), metavar="N", help="denoising steps (default: the model's)"
    )
    parser.add_argument(
        "--repeat", type=whole_number(1), default=3, metavar="N",
        help="turns of warm requests, of which the median counts (default: 3)",
    )  # fmt: skip
    parser.add_argument("--no-cold", action="store_true", help="leave out cold processes")
    add_json(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Cold:
    """A request in a process of its own: its seconds, and the most memory it had, in MiB."""

    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class _Measured:
    """A request: warm, counted in operations, and cold where that is asked for."""

    warm: Timed
    flops: int
    cold: Cold | None


def run(arguments: argparse.Namespace) -> int:
    """Time and count requests; print a table, or numbers."""
    from codi.benchmarks.machine import peak_around
    from codi.benchmarks.requests import request_flops, timed
    from codi.cli.progress import print_line
    from codi.pipeline import load

    arguments.device = resolve_device(arguments.device)
    pipeline = load(arguments.model, device=arguments.device)
    can = pipeline.config.generated
    requests: list[tuple[str, ...]] = [(name,) for name in can]
    requests += [to for to in (*_JOINT, tuple(can)) if len(to) > 1 and set(to) <= set(can)]
    requests = list(dict.fromkeys(requests))
    warm, peak = peak_around(
        lambda: timed(pipeline, requests, arguments.steps, arguments.repeat),
        pipeline.device,
        pipeline.compute_dtype,
    )
    warm_mib = _peak_mib()
    # Parts that are loaded for one request are not made ready, so that a counter sees what they do.
    plain = load(arguments.model, device=arguments.device, offload=True)
    done = [
        _Measured(
            own,
            request_flops(plain, own.to, arguments.steps),
            None if arguments.no_cold else _cold(arguments, own.to),
        )
        for own in warm
    ]
    on = machine(pipeline.compute_dtype, pipeline.device)
    if arguments.json:
        rows = [
            asdict(x.warm)
            | speed_numbers(x.flops, x.warm.seconds, peak)
            | {"cold": x.cold and asdict(x.cold)}
            for x in done
        ]
        numbers = {"model": arguments.model, "machine": on, "peak": peak, "peak_mib": warm_mib}
        print_json(numbers | {"requests": rows})
        return 0
    _print(done, f"model {arguments.model}", peak)
    if arguments.no_cold:
        print_line(f"peak memory of this process: {warm_mib:.0f} MiB")
    print_line(peak_line(peak, on))
    return 0


def _print(done: Sequence[_Measured], title: str, peak: float) -> None:
    """Print a table, and a line for each joint request."""
    from rich.table import Table

    from codi.cli.progress import print_line, print_table

    heads = ("text to", "cold process", "warm", "a step", *SPEED_COLUMNS, "peak memory")
    table = Table(*heads, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for x in done:
        table.add_row(
            " + ".join(x.warm.to),
            f"{x.cold.seconds:.2f} s" if x.cold else "",
            f"{x.warm.seconds:.2f} s",
            "" if x.warm.step_s is None else f"{x.warm.step_s * 1e3:.1f} ms",
            *speed_cells(x.flops, x.warm.seconds, peak),
            f"{x.cold.peak_mib:.0f} MiB" if x.cold else "",
        )
    print_table(table)
    for x in done:
        if x.warm.of_parts is not None:
            joint = " + ".join(x.warm.to)
            print_line(f"{joint}: {x.warm.of_parts:.2f} of the sum of its parts alone")


def _cold(arguments: argparse.Namespace, to: Sequence[str]) -> Cold:
    """Measure `codi generate` in a process of its own.

    Raises:
        ConfigError: it failed; says how.
    """
    import subprocess
    import tempfile

    from codi.benchmarks.requests import PROMPT

    with tempfile.TemporaryDirectory(prefix="codi-") as folder:
        words = ["generate", "--text", PROMPT, "--to", *to, "--out", folder, "--quiet"]
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
    return Cold(taken_s, float(done.stdout.split()[-1]))


_CHILD = """
import sys
from codi.cli import main
from codi.cli.bench_generate import _peak_mib
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
