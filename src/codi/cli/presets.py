"""`codi presets`: the models and recipes that come with the package."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from codi.folders import PRESETS, SHIPPED

_PARAMETERS = re.compile(r"([\d,]+ million) parameters")

SUMMARY = "list the models and recipes that come with the package"

_DESCRIPTION = """\
List what comes with the package: models (a preset is a TOML file; some have trained weights beside
it) with their parameters, and recipes, which say how a model is trained. --describe counts the
parameters of one, part by part, without memory for them: how many of them are attention to the
environment, temporal blocks, towers and so on, and how many those parts have together that are one
network where they come from.

examples:
  codi presets
  codi presets --describe tiny
  codi presets --describe mymodel.toml
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `codi presets`."""
    parser.description = _DESCRIPTION
    parser.set_defaults(run=run)
    parser.add_argument(
        "--describe", metavar="NAME", help="a preset, a recipe, a TOML file or a model's folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do `codi presets`."""
    if arguments.describe is None:
        _list()
    elif (PRESETS / f"{arguments.describe}.toml").is_file() and _is_recipe(arguments.describe):
        _describe_recipe(arguments.describe)
    else:
        _describe_model(arguments.describe)
    return 0


def _is_recipe(name: str) -> bool:
    return name.startswith("recipe-")


def _list() -> None:
    from rich.table import Table

    from codi.cli.progress import print_table

    table = Table("name", "what", "parameters", "about")
    table.columns[2].justify = "right"
    presets = sorted(PRESETS.glob("*.toml"), key=lambda path: path.stem)
    for path in (path for path in presets if not _is_recipe(path.stem)):
        has_weights = (SHIPPED / path.stem / "config.toml").is_file()
        kind = "model with trained weights" if has_weights else "model without weights"
        counted = _PARAMETERS.search(_comment(path))
        table.add_row(path.stem, kind, counted[1] if counted else "?", _about(path))
    for path in (path for path in presets if _is_recipe(path.stem)):
        table.add_row(path.stem, "recipe", "", _about(path))
    print_table(table)


def _about(path: Path) -> str:
    """Return the first sentence of what a preset begins with."""
    return _comment(path).partition(". ")[0].removesuffix(".")


def _comment(path: Path) -> str:
    """Return the comment that a preset begins with; that of a model says how large it is."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def _describe_model(name: str) -> None:
    from rich.table import Table

    from codi.build import counted_together, load_config, share_counts
    from codi.cli.progress import print_line, print_table

    config = load_config(name)
    counted = share_counts(config)
    table = Table("part", "kind", "parameters", title=f"model {config.name}")
    table.columns[2].justify = "right"
    for part, counts in counted.items():
        role, _, part_name = part.partition(".")
        kind = getattr(config, role)[part_name].get("kind", "")
        table.add_row(part, kind, f"{counts['']:,}")
        for row, count in _share_rows(counts):
            table.add_row(row, "", f"{count:,}")
    table.add_section()
    table.add_row("all", "", f"{sum(counts[''] for counts in counted.values()):,}")
    table.add_section()
    for group, counts in counted_together(config, counted).items():
        table.add_row(group, "", f"{counts['']:,}")
        for row, count in _share_rows(counts):
            table.add_row(row, "", f"{count:,}")
    print_table(table)
    for modality, settings in config.modalities.items():
        shape = " x ".join(map(str, settings.latent))
        media = ", ".join(f"{key} = {value}" for key, value in settings.media.items())
        made = "" if settings.diffuser else " (a condition only)"
        print_line(f"{modality}{made}: latent {shape}" + (f"; {media}" if media else ""))


def _share_rows(
    counts: Mapping[str, int], share: str = "", indent: str = "  "
) -> Iterator[tuple[str, int]]:
    """Yield the rows of what a share is made up of, the whole part by default, further in each."""
    from codi.build import within

    of_these = [name for name in within(share, counts) if counts[name]]
    for name in of_these:
        yield indent + name.rpartition("/")[2], counts[name]
        yield from _share_rows(counts, name, indent + "  ")
    rest = counts[share] - sum(counts[name] for name in of_these)
    if of_these and rest:
        yield f"{indent}all else", rest


def _describe_recipe(name: str) -> None:
    from codi.cli.plan import show_plan
    from codi.training.recipe import load_recipe

    show_plan(load_recipe(name), data=None)
