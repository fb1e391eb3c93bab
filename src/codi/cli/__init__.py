"""The command line: `codi COMMAND ...`.

One module for each command reads its options and imports its work only when it runs, so that
`codi --help` needs neither torch nor a model. What the user got wrong is one line on stderr and
exit code 2; Ctrl-C is 130; any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from codi import __version__

# Nothing else is imported before `main` is entered, from where on Ctrl-C is no traceback.
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_DESCRIPTION = """\
Make any of text, image, video and audio from any of them, jointly and in sync.

  codi generate --text "a red ball bounces" --to video audio
  codi generate --image ball.png --audio knock.wav --weights 0.7 0.3 --to image text
  codi generate --keep video=silent.mp4 --to audio
"""
_EPILOG = "codi COMMAND --help explains a command, with examples."


class Command(Protocol):
    """What the module of a command holds."""

    SUMMARY: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options, and `run`: options -> exit code."""


def commands() -> dict[str, Command]:
    """Return the module of every command, in the order in which help lists them."""
    from codi.cli import (
        ablate,
        bench,
        convert,
        data,
        evaluate,
        export,
        generate,
        presets,
        train,
        verify,
    )

    return {
        "generate": generate,
        "train": train,
        "evaluate": evaluate,
        "ablate": ablate,
        "data": data,
        "bench": bench,
        "presets": presets,
        "convert": convert,
        "export": export,
        "verify": verify,
    }


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    from codi.cli.options import Formatter, Parser
    from codi.cli.plugins import OPTION, VARIABLE

    parser = Parser(
        prog="codi", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=Formatter
    )
    parser.add_argument("--version", action="version", version=f"codi {__version__}")
    parser.add_argument(  # read before the parser is built, and listed here for the help
        OPTION,
        metavar="FILE_OR_MODULE",
        help="import a Python file or module first, such as one that registers a modality; may be "
        f"given several times (also: the variable {VARIABLE})",
    )
    choices = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in commands().items():
        one = choices.add_parser(
            name, help=command.SUMMARY, formatter_class=Formatter, allow_abbrev=False
        )
        command.configure(one)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process by default) and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        try:
            return _dispatch(words)
        finally:  # --help and --version end here too
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_left():
            raise
        return 0
    except KeyboardInterrupt:
        if argv is None:  # another Ctrl-C, while Python ends, would be a traceback
            import signal

            signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write("codi: stopped\n")
        return 130
    except Exception as error:
        line = _blame(error)
        if line is None:
            raise
        sys.stderr.write(f"codi: error: {' '.join(line.splitlines())}\n")
        return 2


def _reader_left() -> bool:
    """Say whether stdout's reader, such as `head`, has left; then the rest goes nowhere."""
    import os
    import select

    try:
        output = sys.stdout.fileno()
        poll = select.poll()
    except (AttributeError, OSError):  # no stdout, one in memory, or a platform without poll
        return False
    poll.register(output, select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _dispatch(words: list[str]) -> int:
    import os

    from codi.cli.plugins import load_plugin, plugins_of, split_plugins
    from codi.config import ConfigError, unknown

    plugins, words = split_plugins(words)
    for plugin in (*plugins_of(os.environ), *plugins):
        load_plugin(plugin)
    parser = build_parser()
    if not words:
        parser.print_help(sys.stderr)
        return 2
    if not words[0].startswith("-") and words[0] not in commands():
        raise ConfigError(unknown("command", words[0], commands()))
    parser.set_defaults(plugins=plugins)
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code


def _blame(error: Exception) -> str | None:
    """Return the line for what the user or the machine is to blame for, None for a bug."""
    from codi.config import ConfigError

    # What was made into another error, such as that of a damaged file, may be for want of memory.
    if any(_is_out_of_memory(one) for one in (error, error.__cause__)):
        return "out of memory; work on fewer samples at once (--batch 1), or close other programs"
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OSError):
        subject = f"{error.filename}: " if error.filename else ""
        return f"{subject}{error.strerror or error}; choose another file or folder"
    return str(error) if _is_media_error(error) else None


_OUT_OF_MEMORY: tuple[tuple[type[BaseException], str], ...] = (
    (MemoryError, ""),
    (OSError, "Cannot allocate memory"),
    (
        RuntimeError,  # PyTorch's, that of C++, oneDNN's
        "can't allocate memory|not enough memory|std::bad_alloc|could not create a primitive$",
    ),
    (ImportError, "failed to map segment"),
    (SystemError, "^error return without exception set"),  # no memory was left for the exception
)
"""Errors, and patterns in what they say, that mean too little memory; most say it in words only."""


def _is_out_of_memory(error: BaseException | None) -> bool:
    import re

    return type(error).__name__ == "OutOfMemoryError" or any(
        isinstance(error, kind) and re.search(words, str(error)) for kind, words in _OUT_OF_MEMORY
    )


def _is_media_error(error: Exception) -> bool:
    if not isinstance(error, ValueError):
        return False
    from codi.media import MediaError

    return isinstance(error, MediaError)


__all__ = ["build_parser", "commands", "main"]
