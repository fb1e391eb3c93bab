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
        ConfigError: there is no such file or module.
    """
    path = Path(name)
    if path.suffix == ".py":
        _load_file(path)
        return
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the plugin itself misses
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
    except BaseException:
        del sys.modules[name]
        raise
