"""`codi bench memory`: how much memory requests take at any size, without any weights at hand."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codi.cli.options import Formatter, named_path, whole_number
from codi.config import ConfigError

_DESCRIPTION = """\
Write a model of a preset's size with random weights, run `codi generate` on it in a process of its
own for each request, and watch that process's memory as the operating system counts it. Anonymous
memory is what the process cannot do without; weights that are mapped from their files are not part
of it, and leave memory when something else needs it. Linux only.

examples:
  codi bench memory --folder models/random
  codi bench memory --to image --steps 1 --compute-dtype bf16
  codi bench memory --preset tiny --to video audio --to text
"""
_PROMPT = "a red ball bounces"

_SIZES = {
    "release": ("modalities.image.latent=[4, 1, 64, 64]", "modalities.image.media.size_px=512")
}
"""What presets are measured at, where it is not what they say: pictures of 512 pixels."""

_EVERY_S = 0.01


def configure(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the measurement and its options."""
    parser = kinds.add_parser(
        "memory",
        formatter_class=Formatter,
        help="peak memory of requests, with random weights",
        description=_DESCRIPTION,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--preset", default="release", metavar="P", help="whose sizes (default: release)"
    )
    parser.add_argument(
        "--set", dest="assignments", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="change the preset, such as modalities.video.media.fps=8.0",
    )  # fmt: skip
    parser.add_argument(
        "--to", nargs="+", action="append", metavar="M",
        help="one request; may be given several times (default: image; video; video audio; all)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=["fp32", "bf16", "fp16"], default="bf16",
        help="of the files and of the request (default: bf16)",
    )  # fmt: skip
    parser.add_argument(
        "--compute-dtype", default="auto", metavar="T", help="as in `codi generate`"
    )
    parser.add_argument("--offload", action="store_true", help="as in `codi generate`")
    parser.add_argument(
        "--steps", type=whole_number(1), default=2, metavar="N",
        help="denoising steps; memory does not grow with them (default: 2)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=named_path, metavar="DIR",
        help="where the weights are written, and stay for the next time (default: nowhere)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress")


@dataclass(frozen=True)
class Peak:
    """The most memory a process had, in bytes, and how long it ran."""

    anonymous: int
    mapped: int
    taken_s: float


def run(arguments: argparse.Namespace) -> int:
    """Do `codi bench memory`."""
    from rich.table import Table

    from codi.cli.progress import print_line, print_table

    if not Path("/proc/self/status").is_file():
        raise ConfigError("codi bench memory reads /proc, which this system lacks; use Linux")
    table = Table("text to", "anonymous", "mapped", "seconds", title=_title(arguments))
    for column in table.columns[1:]:
        column.justify = "right"
    with _folder(arguments.folder) as folder:
        requests = _prepare(arguments, folder)
        for to in requests:
            peak = _request(arguments, folder, to)
            row = (" + ".join(to), _gib(peak.anonymous), _gib(peak.mapped), f"{peak.taken_s:.0f}")
            table.add_row(*row)
            if not arguments.quiet:
                print_line(", ".join(row))
    print_table(table)
    return 0


def _title(arguments: argparse.Namespace) -> str:
    words = [f"preset {arguments.preset}", arguments.dtype]
    words += [f"computed in {arguments.compute_dtype}"] * (arguments.compute_dtype != "auto")
    return ", ".join([*words, *["offload"] * arguments.offload, f"{arguments.steps} steps"])


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="codi-") as temporary:
        yield Path(temporary)


def _prepare(arguments: argparse.Namespace, folder: Path) -> list[tuple[str, ...]]:
    """Write the weights that the requests need, and return the requests."""
    from codi.cli.progress import Display
    from codi.convert.dummy import dummy_config, write_dummy
    from codi.nn.precision import DTYPES

    changes = [*_SIZES.get(arguments.preset, ()), *arguments.assignments]
    config = dummy_config(arguments.preset, folder, changes)
    can = config.generated
    usual = [("image",), ("video",), ("video", "audio"), tuple(can)]
    requests = [tuple(to) for to in arguments.to or usual if arguments.to or set(to) <= set(can)]
    outputs = list(dict.fromkeys(name for to in requests for name in to))
    parts = config.parts(("encoders",), ["text"])
    parts += config.parts(("diffusers", "environments", "codecs"), outputs)
    with Display(arguments.quiet) as display:
        for part in write_dummy(config, folder, parts, DTYPES[arguments.dtype]):
            display.say(f"wrote {part}")
    return requests


def _request(arguments: argparse.Namespace, folder: Path, to: Sequence[str]) -> Peak:
    """Return the peak of `codi generate` in a process of its own.

    Raises:
        ConfigError: it failed; says how.
    """
    with tempfile.TemporaryDirectory(prefix="codi-") as out:
        words = ["--text", _PROMPT, "--to", *to, "--model", str(folder), "--out", out, "--quiet"]
        words += ["--steps", str(arguments.steps), "--device", "cpu"]
        words += ["--dtype", arguments.dtype, "--compute-dtype", arguments.compute_dtype]
        words += ["--offload"] * arguments.offload
        return watched([sys.executable, "-m", "codi", "generate", *words])


def watched(words: Sequence[str]) -> Peak:
    """Run a command and return the peak of its memory, looked at a hundred times a second.

    Raises:
        ConfigError: it failed; says how.
    """
    anonymous = mapped = 0
    began_s = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                now = memory_of(process.pid)
                anonymous = max(anonymous, now.get("RssAnon", 0))
                mapped = max(mapped, now.get("RssFile", 0))
                time.sleep(_EVERY_S)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        if process.returncode:
            end = said.read().strip()[-300:]
            raise ConfigError(f"{' '.join(words[1:])}: {end or process.returncode}")
    return Peak(anonymous, mapped, time.perf_counter() - began_s)


def memory_of(process: int) -> dict[str, int]:
    """Return the kinds of memory of a running process in bytes, by their names in /proc."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return {}
    lines = [line.split() for line in status.splitlines()]
    return {line[0].rstrip(":"): int(line[1]) * 2**10 for line in lines if line[-1] == "kB"}
