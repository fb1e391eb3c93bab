"""The state of an unfinished stage on disk: parameters, optimiser, averages, progress.

Tensors are safetensors and the rest is JSON; a checkpoint is written beside the old one and
renamed, so that a killed run always finds a whole one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codi.config import ConfigError
from codi.media import atomic_path, atomic_write_text
from codi.training.ema import MovingAverage

T = TypeVar("T")


def save_checkpoint(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    average: MovingAverage,
    progress: dict[str, Any],
) -> None:
    """Write everything a stage needs to go on as if it had never stopped."""
    partial = folder.with_name(folder.name + ".partial")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(partial, ignore_errors=True)
    if folder.exists():  # otherwise the old one is the only one
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {f"parameter/{name}": p.detach() for name, p in parameters.items()}
    tensors |= {f"average/{name}": value for name, value in average.state().items()}
    for name, p in parameters.items():
        for key, value in optimiser.state.get(p, {}).items():
            tensors[f"optimiser/{key}/{name}"] = torch.as_tensor(value)
    cpu = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
    with atomic_path(partial / "state.safetensors") as temporary:  # which reaches the disk
        save_file(cpu, str(temporary))
    atomic_write_text(partial / "progress.json", json.dumps(progress))
    if folder.exists():
        folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    average: MovingAverage,
) -> dict[str, Any] | None:
    """Restore a checkpoint in place and return its progress; None when there is none.

    Raises:
        ConfigError: a damaged file, or one of other parameters.
    """
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():  # killed between the two renames
        with suppress(FileNotFoundError):  # another of several processes has done it
            old.replace(folder)
    progress_file, file = folder / "progress.json", folder / "state.safetensors"
    if not progress_file.is_file():
        return None
    progress: dict[str, Any] = _read(
        progress_file, lambda: json.loads(progress_file.read_text(encoding="utf-8"))
    )
    tensors = _read(file, lambda: load_file(str(file)))
    saved = {
        key.removeprefix("parameter/"): x
        for key, x in tensors.items()
        if key.startswith("parameter/")
    }
    changed = saved.keys() ^ parameters.keys()
    changed |= {
        n for n in saved.keys() & parameters.keys() if saved[n].shape != parameters[n].shape
    }
    if changed:
        raise ConfigError(
            f"{file}: the checkpoint is of other parameters than the stage trains now "
            f"({min(changed)}); undo what changed, or remove {folder} to start the stage anew"
        )
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(tensors[f"parameter/{name}"])
            average.values[name].copy_(tensors[f"average/{name}"])
    kept = {key.split("/")[1] for key in tensors if key.startswith("optimiser/")}
    for name, p in parameters.items():
        state: dict[str, Tensor] = {}
        for key in kept:
            value = tensors.get(f"optimiser/{key}/{name}")
            if value is not None:
                state[key] = value.to(p.device)  # a fused optimiser counts on the device too
        if state:
            optimiser.state[p] = state
    return progress


def _read(file: Path, read: Callable[[], T]) -> T:
    """Return what `read` finds in a file of a checkpoint.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        return read()
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(
            f"{file}: damaged or unreadable ({error}); remove {file.parent} to start the stage anew"
        ) from error
