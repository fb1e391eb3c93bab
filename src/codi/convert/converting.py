"""Foreign checkpoints -> the folder of a model, tensor by tensor, all or nothing.

Fresh tensors and parts (temporal blocks, environment encoders) are written with the others: then a
folder is complete, every load of it is the same and strict, and training starts from a file.
"""

from __future__ import annotations

import copy
import json
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codi.build import FILE_KEYS, ROLES, ModelConfig, load_config
from codi.config import ConfigError, to_toml, unknown
from codi.convert import layouts as registry
from codi.convert.fresh import fresh_values
from codi.convert.locating import open_source
from codi.convert.planning import (
    PartPlan,
    Plan,
    default_model,
    make_plan,
    recognised,
    setting_of,
)
from codi.convert.reading import open_checkpoint
from codi.convert.writing import Slot, TensorFile, is_written_here, total_bytes
from codi.hub import may_be_of_hub
from codi.locking import uninterrupted
from codi.weights import ORIGIN, part_files, part_stem, read_origin

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What floating-point tensors can be written as; by default they stay what they are."""

Tick = Callable[[str, int, int], None]
"""Called as tick(part, tensors done, tensors in all)."""


@dataclass(frozen=True)
class Conversion:
    """A checked conversion that has not begun.

    Attributes:
        plan: what becomes what.
        folder: where it goes.
        dtype: of the floating-point tensors, by the names of `DTYPES`; None keeps theirs.
        leaves: parts in the folder that do not fit the model any more, to be removed.
    """

    plan: Plan
    folder: Path
    dtype: str | None
    leaves: tuple[str, ...] = ()

    @property
    def absent(self) -> dict[str, str]:
        """Return the parts that the folder will lack -> what would bring them."""
        return {
            part: brought_by(part, self.plan)
            for part in self.plan.model.parts()
            if part not in self.plan.parts and not part_files(self.folder, part)
        }

    @property
    def wanting(self) -> dict[Path, tuple[str, ...]]:
        """Return the folders that a user has yet to fill -> the names of the files."""
        return {
            self.folder / _extras_folder(part, kept.key): kept.forms[0]
            for part, kept in self.plan.wanting
            if not may_be_of_hub(setting_of(self.plan.model, part, kept.key))
        }

    @property
    def fetched(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the hub that are fetched when they are needed -> their files.

        A folder of that name in the model's folder is taken in their place.
        """
        named = {(setting_of(self.plan.model, p, kept.key), kept) for p, kept in self.plan.wanting}
        return {name: kept.forms[0] for name, kept in sorted(named, key=str) if may_be_of_hub(name)}

    @property
    def nbytes(self) -> int:
        """Return how many bytes of weights will be written."""
        return sum(total_bytes(self.slots(part).values()) for part in self.plan.parts.values())

    def slots(self, part: PartPlan) -> dict[str, Slot]:
        """Return the places of a part's tensors in its file."""
        wanted = None if self.dtype is None else DTYPES[self.dtype]
        found = {}
        for name, shape in part.shapes.items():
            drawn = part.drawn.get(name)
            own = shape.dtype if drawn is None else drawn.stored.dtype
            kept = own if own.is_floating_point and shape.is_floating_point() else shape.dtype
            found[name] = Slot(
                tuple(shape.shape), wanted if wanted and kept.is_floating_point else kept
            )
        return found


def prepare(
    named: Sequence[str],
    folder: Path,
    *,
    model: str | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> Conversion:
    """Open files, folders or names of the hub, recognise what they hold, and check all of it.

    Args:
        named: what the user gave.
        folder: of the model that they become, or become part of.
        model: preset, TOML file or folder that says which model; by default that of `folder`, or
            else the one that the files' layout belongs to, or that their own sizes make.
        dtype: a name of `DTYPES`, or None for what `folder` was begun with, or else the files' own.
        force: replace a model or a type that contradicts what is in `folder`, or a part of it that
            was trained.

    Raises:
        ConfigError: whatever does not fit.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(unknown("dtype", dtype, DTYPES))
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; name a folder with --to")
    existing = load_config(folder) if (folder / "config.toml").is_file() else None
    checkpoints = [checkpoint for one in named for checkpoint in open_source(one)]
    found = recognised(checkpoints, registry.LAYOUTS, registry.RELATIVES)
    if model is not None or existing is None:
        config = default_model(found) if model is None else load_config(model)
    else:
        config = existing
    leaves = _leaving(existing, config, folder, force)
    present = [part for part in config.parts() if part_files(folder, part) and part not in leaves]
    plan = make_plan(found, config, present)
    if not force:
        _require_converted(folder, [part for part in present if part in plan.parts], named)
    kept = [part for part in present if part not in plan.parts]
    dtype = _agreed_dtype(folder, dtype, kept, force)
    return Conversion(_with_extras(plan, folder), folder, dtype, tuple(leaves))


def _require_converted(folder: Path, replaced: Sequence[str], named: Sequence[str]) -> None:
    """Check that the parts of a folder which are about to be replaced came from `codi convert`.

    Those can be had again; what was trained cannot.

    Raises:
        ConfigError: one did not.
    """
    converted = read_origin(folder).get("parts", {})
    for part in replaced:
        files = part_files(folder, part)
        if part not in converted or not all(is_written_here(path) for path in files):
            raise ConfigError(
                f"{folder}: {part} ({files[0]}) was trained, or written by others than codi "
                f"convert, and {', '.join(named)} would replace it; convert to another folder, or "
                "replace it with --force"
            )


def _leaving(
    existing: ModelConfig | None, config: ModelConfig, folder: Path, force: bool
) -> list[str]:
    """Return the parts of a folder that another model has no use for.

    Raises:
        ConfigError: it is another model, and nobody said `force`.
    """
    if existing is None or _same_model(existing, config):
        return []
    if not force:
        raise ConfigError(
            f"{folder}: holds model {existing.name!r}, which is not {config.name!r} as given; "
            "convert to another folder, leave --model out, or replace it with --force"
        )
    kept = config.parts()
    return [
        part
        for part in existing.parts()
        if part_files(folder, part)
        and (part not in kept or _table(existing, part) != _table(config, part))
    ]


def _same_model(one: ModelConfig, other: ModelConfig) -> bool:
    """Compare two models; where a tokenizer's files lie makes no other model."""
    if one.parts() != other.parts():
        return False
    same = all(_table(one, part) == _table(other, part) for part in one.parts())
    return same and replace(one, encoders={}, codecs={}) == replace(other, encoders={}, codecs={})


def _table(model: ModelConfig, part: str) -> dict[str, Any]:
    role, name = part.split(".", 1)
    table: dict[str, Any] = getattr(model, role)[name]
    return {key: value for key, value in table.items() if key not in FILE_KEYS}


def _agreed_dtype(
    folder: Path, dtype: str | None, present: Sequence[str], force: bool
) -> str | None:
    """Return the type to write: the one asked for, or the one the folder was begun with.

    Raises:
        ConfigError: they differ, and nobody said `force`.
    """
    if dtype is None:
        begun = read_origin(folder).get("dtype")
        return begun if begun in DTYPES else None
    others = {kind for part in present for kind in _float_types(folder, part)} - {DTYPES[dtype]}
    if others and not force:
        found = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in others))
        raise ConfigError(
            f"{folder}: holds parts in {found}, and {dtype} is asked for; leave --dtype out, "
            "convert to another folder, or mix them with --force"
        )
    return dtype


def _float_types(folder: Path, part: str) -> set[torch.dtype]:
    """Return the types of the floating-point tensors of a part in a folder."""
    stored = [s for path in part_files(folder, part) for s in open_checkpoint(path).stored.values()]
    return {s.dtype for s in stored if s.dtype.is_floating_point}


def _with_extras(plan: Plan, folder: Path) -> Plan:
    """Let the settings of parts name the file that is kept with them, or the folder of several.

    They are written as "./...": beside the configuration, wherever the folder is moved to.
    """
    tables = {role: copy.deepcopy(getattr(plan.model, role)) for role in ROLES}
    for settings in (table for role in ROLES for table in tables[role].values()):
        for key, value in settings.items():
            if isinstance(value, str) and value.startswith(f"{folder}/"):
                settings[key] = "./" + value.removeprefix(f"{folder}/")
    for part, kept, paths in plan.extras:
        role, name = part.split(".", 1)
        place = f"./{_extras_folder(part, kept.key)}"
        alone = len(paths) == 1 and not kept.as_folder
        tables[role][name][kept.key] = f"{place}/{paths[0].name}" if alone else place
    for part, kept in plan.wanting:  # where they will be looked for once they are put there
        role, name = part.split(".", 1)
        if not may_be_of_hub(tables[role][name].get(kept.key, "")):
            tables[role][name][kept.key] = f"./{_extras_folder(part, kept.key)}"
    return replace(plan, model=replace(plan.model, **tables))


def _extras_folder(part: str, key: str) -> str:
    role, name = part.split(".", 1)
    return f"{name}/{role.removesuffix('s')}-{key}"


def brought_by(part: str, plan: Plan) -> str:
    """Say which file would bring a part, by the layouts that the plan's files have, or by any."""
    used = [source.layout for source in plan.sources]
    preset = [layout for layout in registry.LAYOUTS if layout.preset == plan.model.name]
    for layout in dict.fromkeys([*used, *preset, *registry.LAYOUTS]):
        for module in layout.modules:
            if part in module.parts(plan.model):
                return f"{module.file} of {layout.summary}"
    return ""


# --- writing ---


def convert(conversion: Conversion, tick: Tick = lambda *_: None) -> list[str]:
    """Do a conversion: what stops it leaves the folder as it was; Ctrl-C at its end waits.

    Returns:
        A line for each tensor with values that are no numbers or infinite.

    Raises:
        ConfigError: the disk is full, or a number does not fit the type asked for.
    """
    folder, plan = conversion.folder, conversion.plan
    warnings: list[str] = []
    with _staged(folder, conversion.nbytes) as staging:
        for part in plan.parts.values():
            path = part_stem(staging, part.part).with_suffix(".safetensors")
            path.parent.mkdir(parents=True, exist_ok=True)
            warnings += _write_part(part, path, conversion.slots(part), tick)
        for part_name, kept, paths in plan.extras:
            place = staging / _extras_folder(part_name, kept.key)
            place.mkdir(parents=True, exist_ok=True)
            for file in paths:
                shutil.copyfile(file, place / file.name)
        (staging / "config.toml").write_text(to_toml(plan.model), encoding="utf-8")
        (staging / ORIGIN).write_text(_origin(conversion), encoding="utf-8")
        _move_in(staging, folder, [*plan.parts, *conversion.leaves])
    return warnings


def _write_part(part: PartPlan, path: Path, slots: dict[str, Slot], tick: Tick) -> list[str]:
    done, warnings = 0, []
    with TensorFile(path, slots) as file:
        for name, tensor in _values(part):
            if tensor.is_floating_point() and not _is_finite(tensor):
                drawn = part.drawn[name]
                warnings.append(
                    f"{drawn.source}: {drawn.foreign} has values that are NaN or infinite; the "
                    f"model makes nothing of use with such a {part.part}"
                )
            file.write(name, _cast(tensor, slots[name].dtype, part, name))
            done += 1
            tick(part.part, done, len(slots))
    return warnings


def _is_finite(tensor: Tensor) -> bool:
    # What has one byte per number is too small for torch's own check.
    checked = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(torch.isfinite(checked).all())


def _values(part: PartPlan) -> Iterator[tuple[str, Tensor]]:
    for name, drawn in part.drawn.items():
        yield name, drawn.read()
    if part.fresh:
        yield from fresh_values(part.config.build, part.fresh, part.part)


def _cast(tensor: Tensor, dtype: torch.dtype, part: PartPlan, name: str) -> Tensor:
    if tensor.dtype == dtype:
        return tensor
    cast = tensor.to(dtype)
    if dtype == torch.float16 and not torch.isfinite(cast).all() and torch.isfinite(tensor).all():
        raise ConfigError(
            f"{part.part}: {name} has numbers over 65504, which fp16 cannot hold; use --dtype bf16"
        )
    return cast


def _origin(conversion: Conversion) -> str:
    """Return what is kept of where the parts came from, for messages and later calls."""
    plan = conversion.plan
    earlier = read_origin(conversion.folder)
    parts = {
        part: origin
        for part, origin in earlier.get("parts", {}).items()
        if part not in conversion.leaves
    }
    for name, part in plan.parts.items():
        parts[name] = [
            {"layout": layout, "file": path.name} for layout, path in dict.fromkeys(part.origins)
        ]
    table = {
        "dtype": conversion.dtype or earlier.get("dtype"),
        "parts": parts,
        "absent": conversion.absent,
    }
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


@contextmanager
def _staged(folder: Path, nbytes: int) -> Iterator[Path]:
    """Give an empty folder on the disk of `folder`, which is removed in the end."""
    try:
        # A folder that is there may be a mount point or a link: its disk is that of its inside.
        exists = folder.exists()
        place = folder if exists else folder.parent
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
        if nbytes > free:
            raise ConfigError(
                f"{folder}: needs {nbytes / 2**30:.1f} GiB, and its disk has "
                f"{free / 2**30:.1f} GiB left; make room, or convert with --dtype bf16"
            )
        staging = place / f".{'convert' if exists else folder.name}-{secrets.token_hex(4)}"
        staging.mkdir()
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written to: {error.strerror}; choose another folder with --to"
        ) from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_in(staging: Path, folder: Path, replaced: Collection[str]) -> None:
    """Move a finished folder to its place, or its files into a folder that is there."""
    if not folder.exists():
        staging.rename(folder)
        return
    files = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    old = {path for part in replaced for path in part_files(folder, part)}
    files.sort(key=lambda path: path.name in ("config.toml", ORIGIN))  # the parts first
    with uninterrupted():  # half of it would be a mixture of two models
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (staging / file).replace(folder / file)
        for path in old - {folder / file for file in files}:
            path.unlink()
