"""`codi export`: our parts as files of another layout."""

from __future__ import annotations

import argparse

from codi.cli.options import named_path

SUMMARY = "write a model's parts in the layout of others"

_DESCRIPTION = """\
Write the parts of a model as files that other programs read: the names and layouts of codi convert,
backwards. What was converted and not trained since comes back bit for bit. All files are
safetensors; in the folders of Stable Diffusion, AudioLDM, CLIP and CLAP, each has its config.json
beside it. Where all of Stable Diffusion is there, the tokenizer too, its pipeline loads the whole
folder.

examples:
  codi export models/release --as released --to exported
  codi export models/sd --as sd-ldm --to sd.safetensors
  codi export models/sd --as sd-diffusers --to exported
  codi export models/sd --list
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `codi export`."""
    parser.description = _DESCRIPTION
    parser.set_defaults(run=run)
    parser.add_argument("model", metavar="MODEL", help="a model's folder, or a shipped model")
    parser.add_argument("--as", dest="layout", metavar="LAYOUT", help="a layout; see --list")
    parser.add_argument(
        "--to",
        type=named_path,
        metavar="PATH",
        help="a folder, or a file that ends in .safetensors",
    )
    parser.add_argument("--list", action="store_true", help="list the layouts, and stop")
    parser.add_argument("--verbose", action="store_true", help="list every name that is left out")
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes")


def run(arguments: argparse.Namespace) -> int:
    """Do `codi export`."""
    from codi.config import ConfigError

    if arguments.list:
        _list(arguments.model)
        return 0
    if arguments.layout is None or arguments.to is None:
        raise ConfigError("codi export: give --as LAYOUT and --to PATH, or --list")
    from codi.cli.convert import ShownParts
    from codi.cli.progress import Display, print_line
    from codi.convert.exporting import prepare_export, write_export
    from codi.memory import map_large_blocks

    map_large_blocks()
    export = prepare_export(arguments.model, arguments.layout)
    with Display(arguments.quiet) as display:
        written = write_export(export, arguments.to, ShownParts(display).tick)
    if arguments.quiet:
        return 0
    for why in dict.fromkeys(export.left_out.values()):
        names = [name for name, reason in export.left_out.items() if reason == why]
        for name in names if arguments.verbose else [f"{len(names):,} names such as {names[0]}"]:
            print_line(f"left out: {name}: {why}")
    for part in export.absent:
        print_line(f"absent: {part}")
    for path in written:
        print_line(str(path))
    if export.pipeline is not None and export.not_whole and arguments.to not in written:
        calls = export.pipeline.one_by_one(arguments.to)
        print_line(
            f"no model_index.json: {'; '.join(export.not_whole)}; load what is there with {calls}"
        )
    return 0


def _list(model: str) -> None:
    from rich.table import Table

    from codi.build import load_config
    from codi.cli.progress import print_table
    from codi.convert.layouts import LAYOUTS
    from codi.weights import find_model

    config = load_config(find_model(model))
    table = Table("layout", "whose", "parts of this model", "files")
    for layout in LAYOUTS:
        parts = dict.fromkeys(part for module in layout.modules for part in module.parts(config))
        files = dict.fromkeys(module.file for module in layout.modules)
        table.add_row(layout.name, layout.summary, ", ".join(parts), ", ".join(files))
    print_table(table)
