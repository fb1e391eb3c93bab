"""Our parts -> files of a foreign layout: the tables of `codi convert`, read the other way."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from codi.build import ModelConfig, load_config
from codi.config import ConfigError, unknown
from codi.convert import layouts as registry
from codi.convert.locating import ENDINGS
from codi.convert.pipelines import INDEX, Companions, PipelineFolders, folder_of
from codi.convert.planning import listed
from codi.convert.reading import PREPARATION, Stored, open_checkpoint
from codi.convert.rules import Table
from codi.convert.sources import ForeignLayout, ForeignModule, ForeignPipeline
from codi.convert.writing import Slot, TensorFile, total_bytes
from codi.weights import find_model, part_files

ENDING = ".safetensors"
OTHER_ENDINGS = tuple(ending for ending in ENDINGS if ending != ENDING)


@dataclass(frozen=True)
class Leaving:
    """A foreign tensor that is about to be written, and the tensors of ours that it is made of.

    Attributes:
        name: the foreign name, as the table has it.
        ours: our names -> tensors; several where the foreign tensor holds them one after another.
    """

    part: str
    table: Table
    name: str
    ours: dict[str, Stored]

    @property
    def slot(self) -> Slot:
        """Return its shape and type."""
        first = next(iter(self.ours.values()))
        shapes = {name: torch.empty(s.shape, device="meta") for name, s in self.ours.items()}
        return Slot(tuple(self.table.to_foreign(self.name, shapes).shape), first.dtype)

    def read(self) -> Tensor:
        """Return it, laid out as the foreign one."""
        return self.table.to_foreign(self.name, {n: s.read() for n, s in self.ours.items()})


@dataclass
class Export:
    """A checked export that has not begun.

    Attributes:
        files: foreign file (without an ending) -> foreign name -> tensor.
        beside: small files that lie beside them, such as each one's `config.json`.
        pipeline: the pipeline of `diffusers` whose folders these are, where they are of one.
        not_whole: what keeps those folders from being one that a single call loads.
        left_out: our names that the layout has no place for -> why.
        absent: parts that the layout has a place for and the folder does not hold.
    """

    layout: ForeignLayout
    files: dict[str, dict[str, Leaving]] = field(default_factory=dict)
    beside: Companions = field(default_factory=Companions)
    pipeline: PipelineFolders | None = None
    not_whole: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)


def prepare_export(folder: str | Path, layout_name: str) -> Export:
    """Read which parts a model's folder has for a layout, and check that each has its place.

    Raises:
        ConfigError: no such model or layout, no part for it, or a tensor without a place.
    """
    layouts = {layout.name: layout for layout in registry.LAYOUTS}
    if layout_name not in layouts:
        raise ConfigError(unknown("layout", layout_name, layouts))
    found = find_model(folder)
    model = load_config(found)
    export = Export(layouts[layout_name])
    modules: dict[str, list[ForeignModule]] = {}
    for module in export.layout.modules:
        for part in module.parts(model):
            modules.setdefault(part, []).append(module)
    for part, its in modules.items():
        if part_files(found, part):
            _add(export, its, model, part, found)
        else:
            export.absent.append(part)
    if not export.files:
        raise ConfigError(
            f"{found}: has no part for the layout {layout_name!r} "
            f"({', '.join(export.absent) or 'none'} would be); see codi export --list for others"
        )
    if export.layout.pipeline is not None:
        _join(export, export.layout.pipeline, model)
    return export


def _join(export: Export, pipeline: ForeignPipeline, model: ModelConfig) -> None:
    """Make the folders of an export one pipeline, or keep what they lack for it."""
    written = [folder_of(m) for m in export.layout.modules if m.file in export.files]
    export.pipeline = PipelineFolders(pipeline, export.layout, model, tuple(written))
    export.not_whole += export.pipeline.why_not_whole()
    if not export.not_whole:
        export.beside.add(export.pipeline.companions())


def _add(
    export: Export, modules: Sequence[ForeignModule], model: ModelConfig, part: str, folder: Path
) -> None:
    """Give every tensor of a part its place in one of the modules that hold it."""
    left: dict[str, Stored] = {}
    for path in part_files(folder, part):
        left |= open_checkpoint(path).stored
    lost = set(left)
    for module in modules:
        table = module.correspondence(model, part)
        made: dict[str, Leaving] = {}
        for ours, value in left.items():
            why = table.why_fresh(ours)
            foreign = table.foreign(ours)
            if why is not None:
                export.left_out[f"{part}: {ours}"] = why
            elif foreign is not None:
                leaving = made.setdefault(foreign[0], Leaving(part, table, foreign[0], {}))
                leaving.ours[ours] = value
            if why is not None or foreign is not None:
                lost.discard(ours)
        places = export.files.setdefault(module.file, {})
        for name, leaving in made.items():
            _place(places, module.prefix + name, leaving)
        if module.describe is not None:
            about = module.describe(module.config(model, part))
            tables = {PREPARATION: about.pop(PREPARATION, None), "config": about}
            beside = {f"{folder_of(module)}/{name}.json": t for name, t in tables.items() if t}
            export.beside.add(Companions(beside))
    if lost:
        raise ConfigError(
            f"{part}: {listed(sorted(lost))} has no place in the layout {export.layout.name!r}; "
            "it is another kind of model: see codi export --list for other layouts"
        )


def _place(places: dict[str, Leaving], name: str, leaving: Leaving) -> None:
    """Give a tensor its foreign name, which another part may share where the values are the same.

    Raises:
        ConfigError: they differ.
    """
    earlier = places.setdefault(name, leaving)
    if earlier is not leaving and not torch.equal(earlier.read(), leaving.read()):
        raise ConfigError(
            f"{name} of the layout is one tensor, and {earlier.part} and {leaving.part} differ in "
            "it; this model cannot be written in that layout"
        )


def export_paths(export: Export, to: Path) -> dict[str, Path]:
    """Return where each foreign file goes, below the folder or file `to`.

    Raises:
        ConfigError: `to` is one file and the layout has several, or it is named like a file that is
            not written here.
    """
    if to.suffix in OTHER_ENDINGS and not to.is_dir():
        raise ConfigError(
            f"{to}: files are written as safetensors only; name a folder with --to, or a file that "
            f"ends in {ENDING}: {to.with_suffix(ENDING)}"
        )
    if to.suffix != ENDING:
        return {name: to / (name + ENDING) for name in export.files}
    if len(export.files) > 1:
        raise ConfigError(
            f"{to}: the layout {export.layout.name!r} has {len(export.files)} files "
            f"({', '.join(export.files)}); name a folder with --to"
        )
    return dict.fromkeys(export.files, to)


def write_export(
    export: Export, to: Path, tick: Callable[[str, int, int], None] = lambda *_: None
) -> list[Path]:
    """Write the files of an export, each all or nothing, and return them.

    Raises:
        ConfigError: see `export_paths`, or the disk is full.
    """
    paths = export_paths(export, to)
    if export.not_whole:
        _remove_index(to / INDEX)
    for name, path in paths.items():
        leaving = export.files[name]
        slots = {foreign: tensor.slot for foreign, tensor in leaving.items()}
        with (
            _replacing(path, total_bytes(slots.values())) as temporary,
            TensorFile(temporary, slots) as file,
        ):
            for done, (foreign, tensor) in enumerate(leaving.items(), 1):
                file.write(foreign, tensor.read())
                tick(name, done, len(leaving))
    if to in paths.values():  # what lies beside one file may be another's
        return [to]
    return [*paths.values(), *_write_beside(export.beside, to)]


def _remove_index(index: Path) -> None:
    """Remove the index of an older export, which would load the new folders as one pipeline.

    Raises:
        ConfigError: it cannot be removed.
    """
    if not index.is_file():
        return
    try:
        index.unlink()
    except OSError as error:
        raise ConfigError(
            f"{index}: cannot be removed: {error.strerror}; choose another place with --to"
        ) from error


def _write_beside(beside: Companions, to: Path) -> list[Path]:
    """Write small files into the folder `to`, and return those that it holds itself."""
    for name, source in beside.copies.items():
        with _replacing(to / name, source.stat().st_size) as temporary:
            shutil.copyfile(source, temporary)
    for name, table in beside.tables.items():
        data = (json.dumps(table, indent=2, sort_keys=True) + "\n").encode()
        with _replacing(to / name, len(data)) as temporary:
            temporary.write_bytes(data)
    return [to / name for name in beside.tables if name == INDEX]


@contextmanager
def _replacing(path: Path, nbytes: int) -> Iterator[Path]:
    """Give a temporary name beside `path`, and move it there when the block succeeds."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if nbytes > free:
            raise ConfigError(
                f"{path}: needs {nbytes / 2**30:.1f} GiB, and its disk has "
                f"{free / 2**30:.1f} GiB left; make room, or choose another disk with --to"
            )
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; choose another place with --to"
        ) from error
    finally:
        with suppress(OSError):  # its folder may be a file: the error above says so
            temporary.unlink(missing_ok=True)
