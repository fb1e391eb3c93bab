"""Python files and modules of a user's own, imported before any option is read.

A plugin registers what it brings (modalities, kinds of parts, data sources, tasks), and from then
on the command line lists it like what comes with the package. It knows no command.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from codi.config import ConfigError

OPTION = "--plugin"
VARIABLE = "CODI_PLUGINS"
"""Environment variable with further plugins, separated as in PATH."""


def split_plugins(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the plugins that a command line names, wherever it does, and its other words.

    Raises:
        ConfigError: the option without a value.

    >>> split_plugins(["--plugin", "depth.py", "generate", "--to", "depth"])
    (['depth.py'], ['generate', '--to', 'depth'])
    """
    plugins, others = [], []
    left = list(words)
    while left:
        word = left.pop(0)
        option, equals, value = word.partition("=")
        if option != OPTION:
            others.append(word)
        elif value:
            plugins.append(value)
        elif equals or not left:
            raise ConfigError(f"{OPTION}: expected a Python file or a module, as in {OPTION} my.py")
        else:
            plugins.append(left.pop(0))
    return plugins, others


def plugins_of(environment: Mapping[str, str]) -> list[str]:
    """Return the plugins that `CODI_PLUGINS` names.

    >>> plugins_of({"CODI_PLUGINS": "depth.py"})
    ['depth.py']
    """
    return [name for name in environment.get(VARIABLE, "").split(os.pathsep) if name]


def load_plugin(name: str) -> None:
    """Import a Python file, or a module by its name; what is imported already stays as it is.

    Raises:
        ConfigError: there is no such file or module, or it fails; tells in which line.
    """
    path = Path(name)
    if path.suffix == ".py":
        _load_file(path)
        return
    try:
        importlib.import_module(name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise _failure(name, error) from error
        raise ConfigError(
            f"plugin {name!r}: no such module; give a Python file, or install what holds it"
        ) from error


def _load_file(path: Path) -> None:
    file = path.resolve()
    if not file.is_file():
        raise ConfigError(f"plugin '{path}': no such file; check the path")
    if any(getattr(module, "__file__", None) == str(file) for module in list(sys.modules.values())):
        return
    # A name of its own, so that a plugin called like a module that exists does not replace it.
    name = "codi_plugin" + re.sub(r"\W", "_", str(file))
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"plugin '{path}': is not a Python file; give one, or a module's name")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise _failure(str(path), error) from error
        raise


def _failure(plugin: str, error: Exception) -> ConfigError:
    """Return the line for an error inside a plugin: the place in its file, and what it says."""
    import traceback

    passed = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)]
    ways = (__file__, importlib.__file__)
    inside = [
        (file, line)
        for file, line in passed
        if file not in ways and not file.startswith("<frozen importlib")
    ]
    said = " ".join(str(error).split())
    if inside:  # the deepest line of the plugin's own, rather than one of a library that it calls
        place = [(file, line) for file, line in inside if file == inside[0][0]][-1]
    elif isinstance(error, SyntaxError) and error.filename:  # nothing of it ran
        place, said = (error.filename, error.lineno or 1), error.msg
    else:
        place = None
    where = "" if place is None else f"{place[0]}, line {place[1]}: "
    kind = "" if isinstance(error, ConfigError) else type(error).__name__
    words = ": ".join(part for part in (kind, said) if part)
    return ConfigError(f"plugin '{plugin}': {where}{words}; mend it, or leave the plugin out")
