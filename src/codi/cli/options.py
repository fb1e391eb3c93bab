"""What the commands' options have in common: the parser's errors, and values that are read twice.

It imports no torch, and knows no command.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

from codi.config import ConfigError, nearest

_WIDTH = 96


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help with descriptions and examples as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=_WIDTH)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line with the mend, and whose options are never abbreviated."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})  # type: ignore[arg-type]

    def parse_args(self, words: list[str]) -> argparse.Namespace:  # type: ignore[override]
        """Parse, naming the option that an unknown one was probably meant to be."""
        parsed, rest = self.parse_known_args(words)
        if rest:
            command = self._command_of(words)
            command.error(_unknown_option(words, rest, command._option_string_actions))
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raise the message as a `ConfigError`."""
        raise ConfigError(f"{message}; see {self.prog} --help")

    def _command_of(self, words: list[str]) -> argparse.ArgumentParser:
        """Return the parser of the command that `words` begin with."""
        parser: argparse.ArgumentParser = self
        for word in words:
            commands = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
            if not commands or word not in commands[0]:
                break
            parser = commands[0][word]
        return parser


def _unknown_option(words: Sequence[str], rest: Sequence[str], known: Collection[str]) -> str:
    wrong = next((word for word in rest if word.startswith("-")), None)
    if wrong is None:
        is_text = "--text" in known and not Path(rest[0]).is_file()
        mend = f"; did you mean --text {_sentence(words, rest)}?" if is_text else ""
        return f"{rest[0]!r} belongs to no option{mend}"
    close = nearest(wrong.partition("=")[0], known)
    return f"unknown option {wrong}" + (f"; did you mean {close}?" if close else "")


def _sentence(words: Sequence[str], rest: Sequence[str]) -> str:
    """Return the words that belong to no option as one, with what `--text` took of them before.

    >>> _sentence(["generate", "--text", "a", "red", "ball"], ["red", "ball"])
    '"a red ball"'
    """
    first = words.index(rest[0])
    taken = [words[first - 1]] if first > 1 and words[first - 2] == "--text" else []
    text = " ".join([*taken, *rest])
    # A shell reads these letters inside double quotes as well.
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def whole_number(least: int) -> Callable[[str], int]:
    """Return a reader of integers that are at least `least`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text.strip()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return read


def named_path(text: str) -> Path:
    """Read a file's or folder's name for `argparse`; an empty one would mean this folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; name a file or a folder")
    return Path(text)


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="cpu, cuda, cuda:1 ...; auto takes a GPU where there is one (default: auto)",
    )


def add_results(parser: argparse._ActionsContainer) -> None:
    """Add `--results`."""
    parser.add_argument(
        "--results",
        type=named_path,
        metavar="PAGE",
        help="write the table, and the plot where there is one, into this Markdown page too, "
        "beside what it holds of other tasks; all that people wrote there stays",
    )


def resolve_device(name: str) -> str:
    """Return the device that `name` stands for.

    Raises:
        ConfigError: there is no such device here.
    """
    from codi.weights import find_device

    return str(find_device(name))
