"""Names of the model hub: told from folders that are missing, and said before they are fetched."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)


def may_be_of_hub(source: str) -> bool:
    """Say whether a name that is no file or folder here may be NAME or OWNER/NAME of the hub.

    What begins with a folder that is here was meant to be in it.

    >>> [may_be_of_hub(name) for name in ("gpt2", "openai/clip", "./gpt2", "my/own/clip", "")]
    [True, True, False, False, False]
    """
    owner, separator, _name = source.partition("/")
    return bool(_NAME.fullmatch(source)) and not (separator and Path(owner).is_dir())


def announce(source: str) -> None:
    """Warn that a name that is no folder here is looked for on the hub: nothing comes silently.

    Raises:
        FileNotFoundError: it cannot be a name of the hub.
    """
    if not may_be_of_hub(source):
        raise FileNotFoundError("there is no such folder")
    warnings.warn(
        f"{source!r} is no folder here, so it is taken for a name of the hub: what the cache has "
        "not of it is downloaded",
        stacklevel=2,
    )
