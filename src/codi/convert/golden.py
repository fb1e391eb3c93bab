"""Golden files: inputs, weights and outputs of another implementation, to be met exactly.

A golden is `NAME.json`, which says what it is and with which configuration, beside
`NAME.safetensors` with inputs, weights ("w.<foreign key>") and outputs ("out..."). Weights may
lie in another golden of the folder, which the JSON names. How a golden is run is a matter of the
checks, one module a family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from codi.config import ConfigError
from codi.convert.planning import listed
from codi.convert.rules import Table

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Words:
    """Cases in words, which a check compares itself; they are met where it says nothing.

    Attributes:
        unchecked: why they could not be compared.
        differing: which came out otherwise.
    """

    unchecked: str = ""
    differing: str = ""


Made = Tensor | Words


@dataclass(frozen=True)
class Golden:
    """One golden of a folder.

    Attributes:
        path: its JSON file.
        tokenizers: folder of the vocabularies that cases in words need; the golden's own when None.
        read: names of the tensors that a check has asked for.
    """

    path: Path
    tokenizers: Path | None = None
    read: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def name(self) -> str:
        """Return its name, which is the stem of both files."""
        return self.path.stem

    @cached_property
    def about(self) -> dict[str, Any]:
        """Return what its JSON says; where it lists no tensors, those of the file beside it.

        Raises:
            ConfigError: there is no such file, or it is no JSON object.
        """
        if not self.path.is_file():
            beside = self.path.with_suffix(".safetensors").name
            raise ConfigError(f"{self.path}: no such file; add it, which says what {beside} is of")
        try:
            about = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{self.path}: no JSON ({error})") from error
        if not isinstance(about, dict):
            raise ConfigError(f"{self.path}: expected a JSON object, got {type(about).__name__}")
        if "tensors" not in about:
            about["tensors"] = [name for name in self.tensors if not name.startswith("w.")]
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
        """Return an input in the precision that goldens are run in: float32, counts in int64.

        Raises:
            ConfigError: it is not in the file.
        """
        value = self.expected(name)
        return value.to(torch.float32 if value.is_floating_point() else torch.int64)

    def expected(self, name: str) -> Tensor:
        """Return an expected output, in the precision that it is stored in.

        Raises:
            ConfigError: it is not in the file.
        """
        if name not in self.tensors:
            raise ConfigError(f"{self.path.with_suffix('.safetensors')}: no tensor {name!r}")
        self.read.add(name)
        return self.tensors[name]

    def weights(self, prefix: str = "") -> dict[str, Tensor]:
        """Return the weights below a foreign prefix, without it, in float32.

        Raises:
            ConfigError: neither this golden has any, nor one that it names.
        """
        start = f"w.{prefix}"
        for source in (self, *self.named()):
            found = {
                key.removeprefix(start): value.to(torch.float32)
                if value.is_floating_point()
                else value
                for key, value in source.tensors.items()
                if key.startswith(start)
            }
            if found:
                return found
        raise ConfigError(f"{self.path}: names no file with weights {start}*; name one in `what`")

    def named(self) -> Iterator[Golden]:
        """Yield the goldens of the folder that this one's texts name, the longest name first.

        They name one by its whole name, or, as the goldens of the released CoDi do, by what that
        begins with: "golden a" is a_image_unet_step.
        """
        said = " ".join(text for text in self.about.values() if isinstance(text, str))
        others = sorted(self.path.parent.glob("*.json"), key=lambda path: -len(path.stem))
        for called in (_by_name, _by_letter):
            for path in others:
                if path != self.path and re.search(called(path.stem), said):
                    yield Golden(path)

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
        wrong = "; ".join(_misfits(own, fresh | state))
        if wrong:
            raise ConfigError(f"{self.path}: its weights do not fit its config: {wrong}")
        module.load_state_dict(fresh | state)
        return module.eval()

    def beside(self, name: str) -> Golden:
        """Return another golden of the same folder."""
        return Golden(self.path.with_name(f"{name}.json"))


def _by_name(stem: str) -> str:
    return rf"(?<!\w){re.escape(stem)}(?!\w)"


def _by_letter(stem: str) -> str:
    return rf"\bgolden {re.escape(stem.partition('_')[0])}\b"


def _misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what keeps tensors from being those of a module, whose own are `own`."""
    lacking = [name for name in own if name not in given]
    if lacking:
        yield f"no weight for {listed(lacking)}"
    strange = [name for name in given if name not in own]
    if strange:
        yield f"no place for {listed(strange)}"
    sizes = [
        f"{name} {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    if sizes:
        yield f"size mismatch for {listed(sizes)}"


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
