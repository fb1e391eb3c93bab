"""`codi verify`: our code beside what other code made of the same weights and inputs."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from codi.cli.options import named_path

if TYPE_CHECKING:
    from codi.convert.verifying import Line

SUMMARY = "run golden files: is it exactly what the others compute?"

_DESCRIPTION = """\
Run every golden of a folder. A golden is NAME.json, which says what it is, beside NAME.safetensors
with weights, inputs and outputs of the code that it was made with. Our code takes the same weights
and inputs, and the largest difference is printed, as a number and as a share of the expected
tensor's standard deviation.

examples:
  codi verify goldens
  codi verify goldens --json > errors.json
  codi verify goldens --tokenizers ~/tokenizers    there: bert-base-cased/vocab.txt, gpt2/vocab.json
                                                   and gpt2/merges.txt
"""
_EPILOG = """\
What is "not checked" could not be compared, since something else is not there, such as a
tokenizer's files or a tensor that the JSON lists, or since no check reads it; why is printed.

Exit codes: 0 all that was compared is met; 1 an error above its tolerance, words or tokens that
differ, an output that no check makes ("unmade"), or a golden that no check recognises; 2 a golden
that cannot be used, such as one that one of its two files is missing of or that has nothing to
compare, or nothing compared at all.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `codi verify`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=named_path, metavar="DIR", help="folder of goldens")
    parser.add_argument(
        "--tokenizers",
        type=named_path,
        metavar="DIR",
        help="folder with bert-base-cased and gpt2, the vocabularies that cases of tokens need "
        "(default: the folder of goldens)",
    )
    parser.add_argument("--json", action="store_true", help="print the lines as JSON, alone")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace) -> int:
    """Do `codi verify`."""
    from codi.cli.progress import Display
    from codi.convert.verifying import exit_code_of, goldens_of, verify

    goldens = goldens_of(arguments.folder, arguments.tokenizers)
    lines: list[Line] = []
    with Display(arguments.quiet) as display:
        bar = display.begin("goldens", len(goldens))
        while goldens:  # one after another, so that the tensors of only one are in memory
            golden = goldens.pop(0)
            display.note(bar, golden.name)
            lines += verify(golden)
            display.at(bar, len({line.golden for line in lines}))
        display.end(bar)
    if arguments.json:
        import json

        from codi.cli.progress import print_line

        print_line(json.dumps([dataclasses.asdict(line) for line in lines], indent=2))
    else:
        _show(lines)
    return exit_code_of(lines)


def _show(lines: list[Line]) -> None:
    from rich.table import Table

    from codi.cli.progress import print_line, print_table

    table = Table("golden", "tensor", "largest error", "/ deviation", "tolerance", "verdict")
    for line in lines:
        numbers = (line.absolute, line.relative, line.tolerance)
        shown = ("" if number is None else f"{number:.2e}" for number in numbers)
        table.add_row(line.golden, line.tensor, *shown, line.verdict)
    print_table(table)
    for line in lines:
        if line.note:
            print_line(f"{line.verdict}: {line.golden} {line.tensor}".rstrip() + f": {line.note}")
    counted = {v: sum(1 for line in lines if line.verdict == v) for v in _order(lines)}
    print_line(", ".join(f"{count} {verdict}" for verdict, count in counted.items()))
    if not {"pass", "fail"} & counted.keys():
        print_line("nothing was compared, so nothing is verified")


def _order(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line.verdict for line in lines))
