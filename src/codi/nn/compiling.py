"""Networks translated by `torch.compile`: slow to begin with, and kept for the next process."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from codi.config import ConfigError

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""The variable of torch that names the folder of translations."""
VARIANTS = 64
"""Most forms of inputs that are translated."""


def compile_network(network: nn.Module, device: torch.device) -> None:
    """Translate a network at its first call with inputs of a new shape, in place.

    Its weights keep their names. On a GPU whole evaluations become CUDA graphs. Translations are
    kept in the folder that `TORCHINDUCTOR_CACHE_DIR` names, or else in the user's cache.

    Raises:
        ConfigError: there is no compiler that the translation could call.
    """
    if device.type == "cpu":
        require_compiler()
    os.environ.setdefault(CACHE, str(cache_folder()))
    # Guided or not, alone or beside others, each modality, a last and smaller batch: all networks
    # share one count of variants, and beyond it torch computes untranslated without an error.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    network.compile(mode="reduce-overhead" if device.type == "cuda" else None, dynamic=False)


def require_compiler() -> None:
    """Look for a C++ compiler.

    Raises:
        ConfigError: there is none.
    """
    wanted = os.environ.get("CXX", "g++")
    if shutil.which(wanted) is None:
        raise ConfigError(
            f"compiling needs a C++ compiler, and {wanted!r} is not here; "
            "install one (such as g++), name it in the variable CXX, or leave --compile out"
        )


def cache_folder() -> Path:
    """Return where translations are kept when nothing else is said."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "codi", "compiled")
