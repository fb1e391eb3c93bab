"""Golden files: inputs, weights and outputs of another implementation, to be met exactly.

A golden is `NAME.json`, which says what it is and with which configuration, beside
`NAME.safetensors` with inputs, weights ("w.<foreign key>") and outputs ("out..."). Weights may
lie in another golden of the folder. How a golden is run is a matter of the checks, one module a
family.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from codi.config import ConfigError
from codi.convert.rules import Table

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Words:
    """Cases in words, which a check compares itself: they are met, or `unchecked` says why not."""

    unchecked: str = ""


Made = Tensor | Words


@dataclass(frozen=True)
class Golden:
    """One golden of a folder.

    Attributes:
        path: its JSON file.
        read: names of the tensors that a check has asked for.
    """

    path: Path
    read: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def name(self) -> str:
        """Return its name, which is the stem of both files."""
        return self.path.stem

    @cached_property
    def about(self) -> dict[str, Any]:
        """Return what its JSON says.

        Raises:
            ConfigError: the file is no JSON object.
        """
        try:
            about = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{self.path}: no JSON ({error})") from error
        if not isinstance(about, dict):
            raise ConfigError(f"{self.path}: expected a JSON object, got {type(about).__name__}")
        return about

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors, the weights included; none where there is no file of tensors.

        Raises:
            ConfigError: a damaged file.
        """
        path = self.path.with_suffix(".safetensors")
        if not path.is_file():
            return {}
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path}: damaged or unreadable ({error})") from error

    def __getitem__(self, name: str) -> Tensor:
        """Return an input or an expected output.

        Raises:
            ConfigError: it is not in the file.
        """
        if name not in self.tensors:
            raise ConfigError(f"{self.path.with_suffix('.safetensors')}: no tensor {name!r}")
        self.read.add(name)
        return self.tensors[name]

    def weights(self, prefix: str = "") -> dict[str, Tensor]:
        """Return the weights below a foreign prefix, without it, in float32."""
        start = f"w.{prefix}"
        return {
            key.removeprefix(start): value.to(torch.float32) if value.is_floating_point() else value
            for key, value in self.tensors.items()
            if key.startswith(start)
        }

    def has(self, name: str) -> bool:
        """Say whether it holds a tensor."""
        return name in self.tensors

    def filled(
        self,
        module: Module,
        table: Table,
        weights: Mapping[str, Tensor],
        idle: Sequence[str] = (),
    ) -> Module:
        """Return a module for inference with foreign weights of this golden.

        Weights of the submodules `idle`, which nothing will call, need not be there.

        Raises:
            ConfigError: weights that no rule knows, or that do not fit the module.
        """
        state: dict[str, Tensor] = {}
        for foreign, value in weights.items():
            found = table.to_ours(foreign, value)
            if not found and table.why_unused(foreign) is None:
                raise ConfigError(f"{self.path}: no rule for the weight {foreign!r}")
            state |= found
        own = module.state_dict()
        idle_names = tuple(f"{name}." for name in idle)
        fresh = {
            name: own[name]
            for name in own.keys() - state.keys()
            if table.why_fresh(name) or name.startswith(idle_names)
        }
        try:
            module.load_state_dict(fresh | state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"{self.path}: its weights do not fit its config ({reason})"
            ) from error
        return module.eval()

    def beside(self, name: str) -> Golden:
        """Return another golden of the same folder."""
        return Golden(self.path.with_name(f"{name}.json"))


@dataclass(frozen=True)
class Check:
    """How one form of golden is recognised by its JSON, and run.

    Attributes:
        recognises: whether this check is for a golden of this JSON.
        run: returns what our code makes for names of the golden's file ("out..." mostly), of as
            much of it as there is.
        tolerance: largest error, as a share of the expected tensor's standard deviation.
    """

    recognises: Callable[[dict[str, Any]], bool]
    run: Callable[[Golden], Mapping[str, Made]]
    tolerance: float = 2e-4
