"""Models of any size with random weights, for measuring what the real ones would cost.

Files are written tensor by tensor from one block of random numbers, so that neither the time nor
the memory of a whole part is needed. What they make is noise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codi.build import ModelConfig, load_config
from codi.config import ConfigError, to_toml
from codi.convert.fresh import shapes_of
from codi.convert.writing import Slot, TensorFile, total_bytes
from codi.media import atomic_path, atomic_write_text
from codi.weights import part_stem

BLOCK = 2**20
"""How many random numbers there are; larger tensors repeat them."""

_SPARE_BYTES = 2**30
"""What is left free on the disk."""


@dataclass(frozen=True)
class _Words:
    """Where a kind of part says which tokenizer it reads, and what the tokenizer must hold."""

    setting: str
    size: str
    fewer: int = 0
    last: tuple[str, ...] = ()


_WORDS = {
    "clip_text": _Words("tokenizer", "vocabulary", last=("<|startoftext|>", "<|endoftext|>")),
    "optimus": _Words("decoder_tokenizer", "decoder_vocabulary", fewer=3),
}
"""Kinds of parts whose tokenizers are published files: byte pairs, which are made up here."""


def dummy_config(preset: str, folder: Path, assignments: Iterable[str] = ()) -> ModelConfig:
    """Return a preset's configuration with made-up tokenizers, which are written below `folder`.

    Raises:
        ConfigError: no such preset, or a mistake in the assignments.
    """
    config = load_config(preset, assignments)
    found: list[str] = []
    for part in config.parts(("encoders", "codecs")):
        role, name = part.split(".", 1)
        words = _WORDS.get(getattr(config, role)[name].get("kind", ""))
        if words is not None:
            shape: Any = config.part(role, name)
            place = folder / "tokenizers" / part
            _write_byte_pairs(place, getattr(shape, words.size) - words.fewer, words.last)
            found.append(f'{part}.{words.setting}="{place}"')
    return load_config(preset, [*assignments, *found])


def _write_byte_pairs(folder: Path, size: int, last: tuple[str, ...]) -> None:
    """Write the files of a tokenizer of `size` tokens: every byte, and words that no text has."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)][: size - len(last)]
    tokens += [f"<{number}>" for number in range(size - len(last) - len(tokens))]
    numbers = {token: number for number, token in enumerate([*tokens, *last])}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "vocab.json", json.dumps(numbers))
    atomic_write_text(folder / "merges.txt", "#version: 0.2\n")


def write_dummy(
    config: ModelConfig, folder: Path, parts: Iterable[str], dtype: torch.dtype
) -> Iterator[str]:
    """Write parts ("role.name") with random weights of `dtype`; yield each that is finished.

    A file that is there already, of the right size, is kept.

    Raises:
        ConfigError: the disk is too small.
    """
    slots = {part: _slots(config, part, dtype) for part in parts}
    files = {part: part_stem(folder, part).with_suffix(".safetensors") for part in slots}
    missing = [part for part, file in files.items() if not _holds(file, slots[part])]
    wanted = sum(total_bytes(slots[part].values()) for part in missing)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if wanted + _SPARE_BYTES > free:
        raise ConfigError(
            f"{folder}: the weights take {wanted / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
            "free there; give another folder, or fewer outputs"
        )
    atomic_write_text(folder / "config.toml", to_toml(config))
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))
    for part in missing:
        files[part].parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_path(files[part]) as temporary,
            TensorFile(Path(temporary), slots[part]) as file,
        ):
            for name, slot in slots[part].items():
                file.write(name, _values(name, slot, block))
        yield part


def _slots(config: ModelConfig, part: str, dtype: torch.dtype) -> dict[str, Slot]:
    role, name = part.split(".", 1)
    state: Mapping[str, Tensor] = shapes_of(config.part(role, name).build)
    return {
        key: Slot(tuple(x.shape), dtype if x.is_floating_point() else x.dtype)
        for key, x in state.items()
    }


def _holds(file: Path, slots: Mapping[str, Slot]) -> bool:
    """Say whether a file is of the size that the slots need, give or take its header."""
    if not file.is_file():
        return False
    wanted = total_bytes(slots.values())
    return wanted < file.stat().st_size < wanted + 2**20


def _values(name: str, slot: Slot, block: Tensor) -> Tensor:
    """Return first values: of unit gain for matrices, of no effect for norms and biases."""
    if not slot.dtype.is_floating_point or len(slot.shape) < 2:
        return torch.full(slot.shape, float(name.endswith("weight")), dtype=slot.dtype)
    inputs = max(torch.Size(slot.shape[1:]).numel(), 1)
    scaled = (block * inputs**-0.5).to(slot.dtype)
    count = torch.Size(slot.shape).numel()
    return scaled.repeat(-(-count // BLOCK))[:count].view(slot.shape)
