"""What the kinds of `codi bench` have in common: some options, and speed in words and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from codi.cli.options import add_device

if TYPE_CHECKING:
    import torch

SPEED_COLUMNS = ("GFLOP", "GFLOP/s", "of peak")
"""The heads of what `speed_cells` returns."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add a model and the device it is measured on."""
    parser.add_argument(
        "--model", default="tiny", metavar="M", help="a shipped model or a folder (default: tiny)"
    )
    add_device(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print numbers for a program")


def print_json(numbers: Mapping[str, object]) -> None:
    """Print numbers for a program on stdout."""
    import json

    from codi.cli.progress import print_line

    print_line(json.dumps(numbers, indent=2))


def machine(dtype: torch.dtype, device: torch.device | str) -> str:
    """Say what was computed in, and where."""
    import torch

    name = str(dtype).removeprefix("torch.")
    return f"{name}, {device}, {torch.get_num_threads()} threads"


def peak_line(peak: float, on: str) -> str:
    """Say how many operations per second products of matrices reach on a `machine`."""
    return f"matrix products here: {peak / 1e9:.1f} GFLOP/s ({on})"


def speed_cells(flops: float, seconds: float, peak: float) -> tuple[str, str, str]:
    """Return the cells of counted operations that took some seconds."""
    speed = flops / seconds
    return f"{flops / 1e9:.2f}", f"{speed / 1e9:.1f}", f"{speed / peak:.0%}"


def speed_numbers(flops: float, seconds: float, peak: float) -> dict[str, float]:
    """Return the same for a program, in operations and shares."""
    speed = flops / seconds
    return {"flops": flops, "flops_per_s": speed, "of_peak": speed / peak}
