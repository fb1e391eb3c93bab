"""From opened files to a plan: which foreign tensor becomes which of ours, all of it checked.

Nothing is read here but names, shapes and what tells of settings, and nothing is written, so that
whatever does not fit is known before the work begins.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codi.build import ModelConfig, load_config
from codi.config import ConfigError, build
from codi.convert.configs import of_file
from codi.convert.fresh import shapes_of
from codi.convert.reading import Checkpoint, Stored
from codi.convert.rules import Layout, Table
from codi.convert.sampling import (
    changes_of_sampling,
    passed_over,
    sampled_as_told,
    sampling_contradiction,
)
from codi.convert.sources import ForeignLayout, ForeignModule, KeptFiles, Relative, recognise

SHOWN = 5
"""How many names an error shows."""

_OF_THAT_SIZE = "choose the model of that size with --model"
_IN_OWN_SIZE = (
    f"{_OF_THAT_SIZE}, or convert them alone, without --model, into a new folder: that model has "
    "the sizes of the config.json beside them"
)


@dataclass(frozen=True)
class Drawn:
    """A tensor of ours that comes from a file."""

    source: Path
    foreign: str
    stored: Stored
    layout: Layout

    def read(self) -> Tensor:
        """Return it, laid out as ours."""
        return self.layout.to_ours(self.stored.read())


@dataclass
class PartPlan:
    """What one of our parts is made of.

    Attributes:
        shapes: our names -> tensors on the meta device.
        drawn: our names -> where they come from.
        fresh: our names -> what they begin as.
        origins: (layout, file) of each source.
    """

    part: str
    config: Any
    shapes: dict[str, Tensor]
    drawn: dict[str, Drawn] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    origins: list[tuple[str, Path]] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """Return our names that nothing gives."""
        return [n for n in self.shapes if n not in self.drawn and n not in self.fresh]


@dataclass
class SourcePlan:
    """What becomes of the names of one file.

    Attributes:
        used: foreign names that become something of ours.
        unused: the others -> why they are not needed, "" where nobody knows.
        notes: what was taken from the small files beside it, or taken for granted, a line each.
    """

    checkpoint: Checkpoint
    layout: ForeignLayout
    used: set[str] = field(default_factory=set)
    unused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """All parts that some files make of a model, and what becomes of every name in the files.

    Attributes:
        extras: files to keep with a part: (part, what they are, where they are).
        wanting: parts that read with files which no source brought.
    """

    model: ModelConfig
    parts: dict[str, PartPlan]
    sources: list[SourcePlan]
    extras: list[tuple[str, KeptFiles, tuple[Path, ...]]]
    wanting: list[tuple[str, KeptFiles]] = field(default_factory=list)


def recognised(
    checkpoints: Iterable[Checkpoint],
    layouts: Sequence[ForeignLayout],
    relatives: Sequence[Relative] = (),
) -> list[SourcePlan]:
    """Return every file with its layout.

    Raises:
        ConfigError: one is in no known layout, or is one of the relatives.
    """
    return [SourcePlan(c, recognise(c, layouts, relatives)) for c in checkpoints]


def default_model(sources: Sequence[SourcePlan]) -> ModelConfig:
    """Return the model that the files' layouts are converted to when the user names none.

    It is the preset of the layouts with the settings that the small files beside the weights tell
    otherwise, or, of weights that come in many sizes and are converted alone, a model in the sizes
    that the `config.json` beside them tells.

    Raises:
        ConfigError: they are of different models, their `config.json` cannot be used, or each of
            several is a model of its own.
    """
    owns = {source.layout.own for source in sources}
    own = owns.pop() if len(owns) == 1 else None
    described = {s.checkpoint.path.with_name("config.json"): s for s in sources}
    [(about, first), *others] = described.items()
    if own is None or not first.checkpoint.about:
        return _as_told(load_config(default_preset(sources)), sources)
    if others:
        said = " and ".join(str(s.checkpoint.path) for s in described.values())
        raise ConfigError(
            f"{said}: each would be a model of its own; give one of them, or the folder of the "
            f"whole {first.layout.whole}"
        )
    with of_file(about):
        model = build(ModelConfig, own(first.checkpoint.about), first.layout.name)
        for part in model.parts():  # a value that none can have is said here, with its file
            model.part(*part.split(".", 1))
    return model


def _as_told(model: ModelConfig, sources: Sequence[SourcePlan]) -> ModelConfig:
    """Return a model with the settings that lie beside weights, and note them.

    Raises:
        ConfigError: no model can be set so.
    """
    for source in sources:
        for module in source.layout.found(source.checkpoint):
            for part in module.parts(model):
                model = _part_as_told(model, part, source, module)
    return model


def _part_as_told(
    model: ModelConfig, part: str, source: SourcePlan, module: ForeignModule
) -> ModelConfig:
    path, about = module.description.told(source.checkpoint)
    with of_file(path):
        settings = module.description.settings(model.part(*part.split(".", 1)), about)
        model = _with_settings(model, part, settings)
        model.part(*part.split(".", 1))  # a value that none can have is said here
    source.notes += [
        f"{part}: {key} = {value}, as {path} tells"
        for key, value in settings.items()
        if value is not None
    ]
    for path, about in module.sampling(source.checkpoint):
        with of_file(path):
            sampled = sampled_as_told(model, part, about)
        source.notes += [f"{one}, as {path} tells" for one in changes_of_sampling(model, sampled)]
        if (said := passed_over(about)) is not None:
            source.notes.append(f"{path}: {said}")
        model = sampled
    return model


def _with_settings(model: ModelConfig, part: str, settings: Mapping[str, Any]) -> ModelConfig:
    """Return a model with other settings of a part; their names may be dotted, None removes one."""
    role, name = part.split(".", 1)
    tables = copy.deepcopy(getattr(model, role))
    for key, value in settings.items():
        *above, last = key.split(".")
        table = tables[name]
        for step in above:
            table = table.setdefault(step, {})
        if value is None:
            table.pop(last, None)
        else:
            table[last] = value
    return replace(model, **{role: tables})


def default_preset(sources: Sequence[SourcePlan]) -> str:
    """Return the one preset of all files' layouts.

    Raises:
        ConfigError: they are of different models.
    """
    by_preset = {s.layout.preset: s for s in sources}
    if len(by_preset) > 1:
        said = "; ".join(f"{s.checkpoint.path} to {name!r}" for name, s in by_preset.items())
        raise ConfigError(f"these files belong to different models ({said}); choose with --model")
    return next(iter(by_preset))


def make_plan(
    sources: Sequence[SourcePlan], model: ModelConfig, present: Collection[str] = ()
) -> Plan:
    """Return the plan for recognised files.

    Args:
        sources: the files.
        model: what they become.
        present: parts that need not be made fresh, because they are there already.

    Raises:
        ConfigError: a part without all of its tensors, names nobody knows a use for, other shapes,
            or two files for one part.
    """
    plan = Plan(model, {}, list(sources), [])
    for source in sources:
        _plan_source(plan, source)
    for source in sources:
        for module in source.layout.found(source.checkpoint):
            for part in module.companions(model):
                if part not in present:
                    plan.parts.setdefault(part, _all_fresh(model, part))
    if not plan.parts:
        names = ", ".join(str(source.checkpoint.path) for source in sources)
        raise ConfigError(f"{names}: nothing in it has a use in model {model.name!r}; try --model")
    brought = {(part, kept.key) for part, kept, _paths in plan.extras}
    plan.wanting = [(part, kept) for part, kept in plan.wanting if (part, kept.key) not in brought]
    _require_complete(plan)
    return plan


def _plan_source(plan: Plan, source: SourcePlan) -> None:
    checkpoint, model = source.checkpoint, plan.model
    tables: list[tuple[ForeignModule, Table | None]] = []
    for module in source.layout.found(checkpoint):
        parts = module.parts(model)
        if not parts:
            tables.append((module, None))
            continue
        _require_computable(checkpoint, module)
        for part in parts:
            table = module.correspondence(model, part)
            tables.append((module, table))
            if module.caution:
                source.notes.append(f"{part}: {module.caution}")
            _draw(_part_plan(plan, part), source, module, table)
            _require_agreement(checkpoint, module, model, part)
            for kept in module.files:
                paths = kept.found(checkpoint.path)
                if paths:
                    plan.extras.append((part, kept, paths))
                elif not kept.at(setting_of(model, part, kept.key)):
                    plan.wanting.append((part, kept))
    skipped = source.layout.why_skipped(checkpoint)
    for name in checkpoint.stored:
        if name not in source.used:
            source.unused[name] = skipped or _why_unused(name, source.layout, tables, model)


def _require_computable(checkpoint: Checkpoint, module: ForeignModule) -> None:
    """Check that parts of ours can compute what the small file beside weights tells.

    Raises:
        ConfigError: they cannot.
    """
    path, about = module.description.told(checkpoint)
    with of_file(path):
        module.description.refusal(about)


def _require_agreement(
    checkpoint: Checkpoint, module: ForeignModule, model: ModelConfig, part: str
) -> None:
    """Check that the small files beside weights tell nothing that the model has otherwise.

    Raises:
        ConfigError: they do.
    """
    path, about = module.description.told(checkpoint)
    with of_file(path):
        config = model.part(*part.split(".", 1))
        _require_none(part, module.description.contradiction(config, about) if about else None)
    for path, about in module.sampling(checkpoint):
        with of_file(path):
            _require_none(part, sampling_contradiction(model, part, about))


def _require_none(part: str, contradiction: str | None) -> None:
    if contradiction is not None:
        raise ConfigError(f"{part} {contradiction}, or choose another model with --model")


def _part_plan(plan: Plan, part: str) -> PartPlan:
    if part not in plan.parts:
        role, name = part.split(".", 1)
        config = plan.model.part(role, name)
        plan.parts[part] = PartPlan(part, config, shapes_of(config.build))
    return plan.parts[part]


def _all_fresh(model: ModelConfig, part: str) -> PartPlan:
    role, name = part.split(".", 1)
    config = model.part(role, name)
    shapes = shapes_of(config.build)
    return PartPlan(
        part, config, shapes, fresh=dict.fromkeys(shapes, "a part of its own, untrained")
    )


def _draw(part: PartPlan, source: SourcePlan, module: ForeignModule, table: Table) -> None:
    """Find our tensors in a file."""
    part.origins.append((source.layout.name, source.checkpoint.path))
    for ours, shape in part.shapes.items():
        found = table.foreign(ours)
        foreign = None if found is None else module.prefix + found[0]
        if found is None or foreign not in source.checkpoint.stored:
            why = table.why_fresh(ours)
            if why is not None and ours not in part.drawn:
                part.fresh[ours] = why
            continue
        assert foreign is not None
        earlier = part.drawn.get(ours)
        if earlier is not None:
            raise ConfigError(
                f"{source.checkpoint.path} and {earlier.source} both hold {part.part}; give one"
            )
        drawn = Drawn(source.checkpoint.path, foreign, source.checkpoint.stored[foreign], found[1])
        mend = _OF_THAT_SIZE if source.layout.own is None else _IN_OWN_SIZE
        _require_shape(drawn, part.part, ours, shape, mend)
        _require_kind(drawn, part.part, ours, shape)
        part.drawn[ours] = drawn
        part.fresh.pop(ours, None)
        source.used.add(foreign)


def _require_kind(drawn: Drawn, part: str, ours: str, shape: Tensor) -> None:
    found = drawn.stored.dtype
    if shape.is_floating_point() and not found.is_floating_point:
        kind = str(found).removeprefix("torch.")
        raise ConfigError(
            f"{drawn.source}: {drawn.foreign} is of {kind}, and {ours} "
            f"of {part} takes real numbers; give weights in a floating-point type (float32, "
            "bfloat16, float16)"
        )


def _require_shape(drawn: Drawn, part: str, ours: str, shape: Tensor, mend: str) -> None:
    try:
        as_ours = drawn.layout.to_ours(torch.empty(drawn.stored.shape, device="meta"))
        found = tuple(as_ours.shape)
    except (IndexError, RuntimeError):  # a layout of other dimensions
        found = drawn.stored.shape
    if found != tuple(shape.shape):
        raise ConfigError(
            f"{drawn.source}: {drawn.foreign} is {drawn.stored.shape}, and {ours} of {part} takes "
            f"{tuple(shape.shape)}; these are weights of another size: {mend}"
        )


def _why_unused(
    name: str,
    layout: ForeignLayout,
    tables: Sequence[tuple[ForeignModule, Table | None]],
    model: ModelConfig,
) -> str:
    for module, table in tables:
        if not name.startswith(module.prefix):
            continue
        if table is None:
            return module.misfit or f"model {model.name!r} has no part for it"
        why = table.why_unused(name.removeprefix(module.prefix))
        if why is not None:
            return why
    return layout.why_unused(name) or ""


def setting_of(model: ModelConfig, part: str, key: str) -> str:
    """Return what a part's setting names: a file, a folder, a name of the hub, or ""."""
    role, name = part.split(".", 1)
    value: str = getattr(model, role)[name].get(key, "")
    return value


def _require_complete(plan: Plan) -> None:
    lost = [said for part in plan.parts.values() if part.missing for said in _lacking(plan, part)]
    unknown = [
        f"{source.checkpoint.path} holds {listed(names)}, which no part uses"
        for source in plan.sources
        if (names := [name for name, why in source.unused.items() if not why])
    ]
    if lost or unknown:
        raise ConfigError(
            "; ".join([*lost, *unknown]) + "; is it another model (--model), a file that was cut, "
            "or is a file missing that belongs to it?"
        )


def _lacking(plan: Plan, part: PartPlan) -> Iterator[str]:
    """Say what a part lacks, by the names that its sources have for it, file by file."""
    given = ", ".join(dict.fromkeys(str(path) for _, path in part.origins)) or "nothing given"
    lost: dict[tuple[str, str], dict[str, str]] = {}
    for ours in part.missing:
        file, owner, foreign = _sought(plan, part, ours) or (given, "", f"{part.part}: {ours}")
        lost.setdefault((file, owner), {}).setdefault(foreign, ours)
    for (file, owner), names in lost.items():
        holder = f"{owner} holds: give them in one call, since " if owner else ""
        yield (
            f"{file} lacks {listed(list(names))}, which {holder}{part.part} is made of (as its "
            f"{next(iter(names.values()))})"
        )


def _sought(plan: Plan, part: PartPlan, ours: str) -> tuple[str, str, str] | None:
    """Return where a tensor of ours would be: the file given, one not given or "", its name there.

    None where no file of the part's layouts has a name for it.
    """
    present = [m for s in plan.sources for m in s.layout.found(s.checkpoint)]
    for source in plan.sources:
        if (source.layout.name, source.checkpoint.path) not in part.origins:
            continue
        held = source.layout.found(source.checkpoint)
        for module in source.layout.modules:
            if part.part not in module.parts(plan.model):
                continue
            foreign = module.correspondence(plan.model, part.part).foreign(ours)
            if foreign is not None and (module in held or module not in present):
                owner = "" if module in held else f"{module.file} of {source.layout.summary}"
                return str(source.checkpoint.path), owner, module.prefix + foreign[0]
    return None


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are.

    >>> listed(["a", "b"])
    'a, b'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
