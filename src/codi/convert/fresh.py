"""First values of the tensors that no foreign file holds, without the memory of the whole part.

A part is built twice: once on the meta device, to learn which registration of a parameter became
which name; then again, for a few names at a time, with every other parameter put on the meta device
as soon as it is registered. So the values are those that the part itself begins with (zero where a
branch must begin as nothing), and the rest is never allocated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

GROUP_BYTES = 256 * 2**20
"""How much is built at once."""

Build = Callable[[], nn.Module]


def shapes_of(build: Build) -> dict[str, Tensor]:
    """Return the state dict of a part on the meta device: shapes and types without memory."""
    with torch.device("meta"):
        return build().state_dict()


def fresh_values(build: Build, names: Collection[str], seed: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, first value) of some tensors of a part; the same for the same `seed`."""
    numbers, wanted = _registrations(build, names)
    for index, group in enumerate(_groups(wanted)):
        kept = {numbers[name] for name in group}
        with torch.random.fork_rng(devices=[]), _only(kept):
            torch.manual_seed(zlib.crc32(f"{seed}/{index}".encode()))
            state = build().state_dict()
        for name in group:
            yield name, state.pop(name)  # each is freed as soon as it is used
        state.clear()


def _registrations(
    build: Build, names: Collection[str]
) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Return which registration each name came from, and its tensor on the meta device."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, _name: str, value: Tensor | None) -> None:
        if value is not None:
            seen.append(value)

    with _registering(note), torch.device("meta"):
        state = build().state_dict(keep_vars=True)
    numbers: dict[int, int] = {}
    for number, value in enumerate(seen):
        numbers.setdefault(id(value), number)
    return (
        {name: numbers[id(state[name])] for name in names},
        {name: value for name, value in state.items() if name in set(names)},
    )


def _groups(wanted: dict[str, Tensor]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name, value in wanted.items():
        if group and size + value.nbytes > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += value.nbytes
    if group:
        yield group


@contextmanager
def _only(kept: set[int]) -> Iterator[None]:
    """Put every tensor on the meta device that is not one of the registrations `kept`."""
    count = 0
    alive: list[Tensor] = []

    def drop(_module: nn.Module, _name: str, value: Tensor | None) -> Tensor | None:
        nonlocal count
        if value is None:
            return None
        number, count = count, count + 1
        if number in kept:
            alive.append(value)
        if any(value is other for other in alive):  # a shared parameter is registered again
            return value
        empty = value.detach().to("meta")
        is_parameter = isinstance(value, nn.Parameter)
        return nn.Parameter(empty, value.requires_grad) if is_parameter else empty

    with _registering(drop):
        yield


@contextmanager
def _registering(hook: Callable[..., Any]) -> Iterator[None]:
    """Call a hook at every registration of a parameter or buffer, of any module."""
    handles = [
        register_module_parameter_registration_hook(hook),
        register_module_buffer_registration_hook(hook),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
