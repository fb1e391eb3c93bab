"""`codi convert`: weights of others become a folder that `codi generate --model` reads."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from codi.cli.options import named_path

if TYPE_CHECKING:
    from codi.cli.progress import Display
    from codi.convert.converting import Conversion
    from codi.convert.planning import SourcePlan

SUMMARY = "turn published weights into a model's folder"

_DESCRIPTION = """\
Read weights of others (the released CoDi, Stable Diffusion, AudioLDM, CLIP, CLAP ...) and write
them as the folder of a model, for codi generate --model DIR. What a file is, its contents say.
Every name in it is accounted for: it becomes something of ours, or is listed with the reason why
not. Nothing in a file is ever executed, a file of any size needs little memory, and DIR is written
when all of it is ready, or not at all.

examples:
  codi convert CoDi_encoders.pth CoDi_video_diffuser_8frames.pth --to models/release --dtype bf16
  codi convert CoDi_audio_diffuser_m.pth --to models/release         adds to the folder
  codi convert v1-5-pruned-emaonly.safetensors --to models/sd --dry-run
  codi convert ~/downloads/stable-diffusion-v1-5 --to models/sd
  codi convert openai/clip-vit-large-patch14 --to models/mine --model paper
  codi convert ~/downloads/clap-htsat-unfused --to models/clap
"""
_EPILOG = """\
A source is a file (.safetensors, .pth, .ckpt, .bin), a folder in the layout of diffusers or
transformers, or OWNER/NAME of the hub, where there is a network or it was fetched before. Parts
that no source brings are left out: codi generate says which file would bring one that it needs.
What a config.json beside the weights (or a pipeline's scheduler) tells is taken into a new model,
held against one that --model or DIR names, and refused where no part computes it. A later call adds
to DIR and converts its parts anew; a part that was trained is only replaced with --force.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `codi convert`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.set_defaults(run=run)
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="a file, a folder, or OWNER/NAME of the hub"
    )
    parser.add_argument(
        "--to", type=named_path, required=True, metavar="DIR", help="folder of the model; may exist"
    )
    parser.add_argument(
        "--dtype",
        choices=["fp32", "bf16", "fp16"],
        help="type of the numbers that are written (default: that of DIR, else the source's own)",
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="what they become: a preset, a TOML file or a model's folder (default: that of DIR, "
        "else the preset that the source belongs to; for CLIP and CLAP, one of its own sizes)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="let --model and --dtype contradict what is in DIR, and replace parts of it that were "
        "trained; parts that do not fit go",
    )
    parser.add_argument("--dry-run", action="store_true", help="check all of it and write nothing")
    parser.add_argument("--verbose", action="store_true", help="list every name, not the counts")
    parser.add_argument("--quiet", action="store_true", help="no progress, no tables")


def run(arguments: argparse.Namespace) -> int:
    """Do `codi convert`."""
    from codi.cli.progress import Display, print_line
    from codi.convert.converting import convert, prepare
    from codi.memory import map_large_blocks

    map_large_blocks()
    conversion = prepare(
        arguments.sources,
        arguments.to,
        model=arguments.model,
        dtype=arguments.dtype,
        force=arguments.force,
    )
    if not arguments.quiet or arguments.verbose:
        _show(conversion, arguments.verbose)
    if arguments.dry_run:
        return 0
    with Display(arguments.quiet) as display:
        warnings = convert(conversion, ShownParts(display).tick)
    for warning in warnings:  # quiet or not: it is about what was given
        sys.stderr.write(f"codi: warning: {warning}\n")
    if not arguments.quiet:
        print_line(f"the model is in {arguments.to}")
        for part, source in conversion.absent.items():
            print_line(f"absent: {part}" + (f" (comes with {source})" if source else ""))
        for place, names in conversion.wanting.items():
            print_line(f"absent: {' and '.join(names)} (put {_them(names)} into {place})")
        for name, names in conversion.fetched.items():
            print_line(
                f"absent: {' and '.join(names)} of {name} (fetched from the hub where there is a "
                f"network; else put {_them(names)} into {arguments.to / name})"
            )
    return 0


def _them(names: tuple[str, ...]) -> str:
    return "them" if len(names) > 1 else "it"


class ShownParts:
    """A bar for each part, or file, while it is written."""

    def __init__(self, display: Display) -> None:
        self.display = display

    def tick(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` tensors are written."""
        if done == 1:
            self.bar = self.display.begin(what, total)
        self.display.at(self.bar, done)
        if done == total:
            self.display.end(self.bar)


def _show(conversion: Conversion, verbose: bool) -> None:
    """Print what becomes of every name: counted, or one by one."""
    from rich.table import Table

    from codi.cli.progress import print_line, print_table

    plan = conversion.plan
    table = Table("source", "layout", "used", "unused", title=f"model {plan.model.name}")
    for source in plan.sources:
        for note in (*source.checkpoint.notes, *source.notes):
            print_line(f"note: {note}")
        table.add_row(
            str(source.checkpoint.path),
            source.layout.name,
            f"{len(source.used):,}",
            f"{len(source.unused):,}",
        )
    print_table(table)
    table = Table("part", "matched", "fresh", "missing")
    for part in plan.parts.values():
        numbers = (len(part.drawn), len(part.fresh), len(part.missing))
        table.add_row(part.part, *(f"{number:,}" for number in numbers))
    print_table(table)
    print_line(f"{conversion.nbytes / 2**30:.2f} GiB in {conversion.dtype or 'their own type'}")
    for source in plan.sources:
        _show_unused(source, verbose)
    if verbose:
        for part in plan.parts.values():
            for ours, drawn in part.drawn.items():
                print_line(f"matched: {part.part}: {ours} <- {drawn.foreign}")
    for part in plan.parts.values():
        for why in dict.fromkeys(part.fresh.values()):
            names = [name for name, reason in part.fresh.items() if reason == why]
            shown = names if verbose else [f"{len(names):,} names such as {names[0]}"]
            for name in shown:
                print_line(f"fresh: {part.part}: {name}: {why}")


def _show_unused(source: SourcePlan, verbose: bool) -> None:
    from codi.cli.progress import print_line

    for why in dict.fromkeys(source.unused.values()):
        names = [name for name, reason in source.unused.items() if reason == why]
        for name in names if verbose else [f"{len(names):,} names such as {names[0]}"]:
            print_line(f"unused: {source.checkpoint.path.name}: {name}: {why}")
