"""What a foreign layout is: what its files hold, which of our parts that is, and how one knows it.

A layout is recognised by the names and shapes of a file's tensors, never by the file's name. Those
that are known stand in `codi.convert.layouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from codi.build import ModelConfig
from codi.config import ConfigError
from codi.convert.configs import UNDESCRIBED, Description, Told
from codi.convert.reading import Checkpoint
from codi.convert.rules import Table, below
from codi.convert.sampling import untold

Shape = tuple[int | None, ...]
"""A shape; None is any size."""


@dataclass(frozen=True)
class Signs:
    """Names by which something is recognised in a file, all of which must be there.

    Attributes:
        present: names, and the shape that the tensor must have (None: any).
        absent: names that must not be there.
    """

    present: Mapping[str, Shape | None]
    absent: tuple[str, ...] = ()

    def found(self, checkpoint: Checkpoint, prefix: str = "") -> bool:
        """Say whether a file has the signs below `prefix`."""
        return not any(prefix + name in checkpoint.stored for name in self.absent) and all(
            prefix + name in checkpoint.stored
            and (shape is None or _fits(checkpoint.stored[prefix + name].shape, shape))
            for name, shape in self.present.items()
        )


def _fits(found: tuple[int, ...], wanted: Shape) -> bool:
    return len(found) == len(wanted) and all(
        w in (None, f) for f, w in zip(found, wanted, strict=True)
    )


def signs_of(*names: str, absent: tuple[str, ...] = (), **read: int) -> Signs:
    """Return signs of names of any shape; of those in `read`, convolutions of so many channels.

    In the keywords of `read`, "__" stands for a dot.
    """
    shapes: dict[str, Shape | None] = dict.fromkeys(names)
    for name, channels in read.items():
        shapes[name.replace("__", ".")] = (None, channels, None, None)
    return Signs(shapes, absent)


@dataclass(frozen=True)
class KeptFiles:
    """Small files (a tokenizer's) that a part reads with, and that are kept in its folder.

    Attributes:
        forms: their names in each form that they may have; the first that is all there is kept.
        key: setting of the part that then names the file, or the folder of several.
        places: folders beside the weights in which they are looked for, in this order.
        of_others: texts in files of these names that are another tokenizer's: vocab.json is
            CLIP's and GPT-2's.
        as_folder: whether the setting names the folder also where the form is one file.
    """

    forms: tuple[tuple[str, ...], ...]
    key: str = "tokenizer"
    places: tuple[str, ...] = (".", "tokenizer", "../tokenizer")
    of_others: tuple[str, ...] = ()
    as_folder: bool = False

    def found(self, weights: Path) -> tuple[Path, ...]:
        """Return the files that lie beside a file of weights, none where no form is complete."""
        for place in self.places:
            for names in self.forms:
                paths = tuple(weights.parent / place / name for name in names)
                if all(path.is_file() for path in paths) and not self._of_others(paths[0]):
                    return paths
        return ()

    def at(self, setting: str) -> tuple[Path, ...]:
        """Return the file that a setting names, or those of a form in the folder; or none."""
        if not setting:
            return ()
        place = Path(setting)
        forms = [(place,), *(tuple(place / name for name in names) for names in self.forms)]
        return next((form for form in forms if all(path.is_file() for path in form)), ())

    def _of_others(self, path: Path) -> bool:
        text = path.read_text(encoding="utf-8", errors="replace") if self.of_others else ""
        return any(other in text for other in self.of_others)


@dataclass(frozen=True, eq=False)  # each is itself
class ForeignModule:
    """A module of a foreign checkpoint that is one of our parts, or a piece of one.

    Attributes:
        prefix: what its names begin with, with the dot, or "".
        role, of: the parts it becomes: those that the modalities `of` have in `role`.
        kind: class of the configuration that `table` takes.
        table: configuration -> correspondence of names, without `prefix` and `inside`.
        signs: what it is recognised by, below `prefix`.
        file: file that holds it, without an ending: "unet/diffusion_pytorch_model".
        inside: module of our part that it is, where it is only a piece: "vocoder". The
            configuration is then the part's attribute of this name.
        fits: configuration of our part -> whether these weights are all that it needs; where not,
            they are passed over, and `misfit` says why.
        fresh: names of our whole part (globs) that no foreign file has -> what they begin as.
        begins: roles whose parts are made fresh for the same modalities, since a model without
            them cannot generate several streams at once: ("environments",).
        files: files (tokenizers') to be kept with the part.
        caution: what a file that holds it cannot tell, and is taken for granted; it is printed.
        description: what a small file beside it tells of what its library computes with.
        sampling: file -> the files that tell which noise schedule it was trained with, and their
            contents (`codi.convert.sampling.sampled_as_told`), of a diffuser.
        describe: configuration -> contents of the `config.json` that its library expects beside it,
            and under `PREPARATION` those of the file of that name, as they are read.
    """

    prefix: str
    role: str
    of: tuple[str, ...]
    kind: type[Any]
    table: Callable[[Any], Table]
    signs: Signs
    file: str
    inside: str = ""
    fits: Callable[[Any], bool] | None = None
    misfit: str = ""
    fresh: Mapping[str, str] = field(default_factory=dict)
    begins: tuple[str, ...] = ()
    files: tuple[KeptFiles, ...] = ()
    caution: str = ""
    description: Description = UNDESCRIBED
    sampling: Callable[[Checkpoint], list[tuple[Path, Told]]] = untold
    describe: Callable[[Any], dict[str, Any]] | None = None

    def parts(self, model: ModelConfig) -> list[str]:
        """Return our parts ("role.name") that it becomes in a model; none where it has no use."""
        found = model.parts((self.role,), [name for name in self.of if name in model.modalities])
        return [part for part in found if self._fits(model, part)]

    def _fits(self, model: ModelConfig, part: str) -> bool:
        role, name = part.split(".", 1)
        return self.fits is None or self.fits(model.part(role, name))

    def companions(self, model: ModelConfig) -> list[str]:
        """Return the parts that are made fresh beside it."""
        return model.parts(self.begins, [name for name in self.of if name in model.modalities])

    def config(self, model: ModelConfig, part: str) -> Any:
        """Return the configuration that the table takes.

        Raises:
            ConfigError: the model's part is of another kind.
        """
        role, name = part.split(".", 1)
        config = model.part(role, name)
        for attribute in filter(None, self.inside.split(".")):
            config = getattr(config, attribute, None)
        if not isinstance(config, self.kind):
            raise ConfigError(
                f"{part} of model {model.name!r} has a {type(config).__name__}, and these weights "
                f"are for a {self.kind.__name__}; choose another model with --model"
            )
        return config

    def correspondence(self, model: ModelConfig, part: str) -> Table:
        """Return the table between a whole part of ours and the names below `prefix`."""
        table = self.table(self.config(model, part))
        fresh = {
            f"{self.inside}.{glob}" if self.inside else glob: why
            for glob, why in table.fresh.items()
        }
        return replace(
            table, rules=below(self.inside, "", table.rules), fresh={**fresh, **self.fresh}
        )


@dataclass(frozen=True)
class ForeignPipeline:
    """A pipeline of `diffusers`: folders of a layout that one call loads where all are there.

    Attributes:
        name: its class.
        components: folder of weights -> the library and the class that load it.
    """

    name: str
    components: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Skip:
    """A file that belongs to a layout and holds nothing that we use; `why` is printed."""

    signs: Signs
    why: str


@dataclass(frozen=True)
class Relative:
    """A file of another model that looks like one of a layout, and is refused; `why` is said."""

    signs: Signs
    why: str


@dataclass(frozen=True, eq=False)  # each is itself
class ForeignLayout:
    """A way in which checkpoints are laid out.

    Attributes:
        name: what `--as` takes.
        summary: whose layout it is, for people.
        preset: our model that its weights become, unless the user names another.
        modules: what its files hold.
        unused: full names (globs) of no module -> why they are not needed.
        skips: whole files that are not needed.
        own: contents of the `config.json` beside the weights -> the table of a model of these
            weights alone, in their sizes; for weights that come in more sizes than presets have.
        whole: class of the library whose folder `own` takes whole.
        pipeline: what the folders that are written are together, in a layout of `diffusers`.
    """

    name: str
    summary: str
    preset: str
    modules: tuple[ForeignModule, ...]
    unused: Mapping[str, str] = field(default_factory=dict)
    skips: tuple[Skip, ...] = ()
    own: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    whole: str = ""
    pipeline: ForeignPipeline | None = None

    def found(self, checkpoint: Checkpoint) -> list[ForeignModule]:
        """Return the modules that a file holds."""
        return [m for m in self.modules if m.signs.found(checkpoint, m.prefix)]

    def why_unused(self, name: str) -> str | None:
        """Return why a name of no module is not needed, or None when nothing says so."""
        return Table((), self.unused).why_unused(name)

    def why_skipped(self, checkpoint: Checkpoint) -> str | None:
        """Return why a whole file is not needed, or None."""
        return next((s.why for s in self.skips if s.signs.found(checkpoint)), None)


def recognise(
    checkpoint: Checkpoint, layouts: Sequence[ForeignLayout], relatives: Sequence[Relative] = ()
) -> ForeignLayout:
    """Return the layout of a file: the one that finds most modules in it.

    Raises:
        ConfigError: none does, or it is of a relative that looks like one.
    """
    for relative in relatives:
        if relative.signs.found(checkpoint):
            raise ConfigError(f"{checkpoint.path}: {relative.why}")
    best = max(layouts, key=lambda layout: len(layout.found(checkpoint)), default=None)
    if best is not None and best.found(checkpoint):
        return best
    for layout in layouts:
        if layout.why_skipped(checkpoint) is not None:
            return layout
    names = ", ".join(list(checkpoint.stored)[:3]) or "nothing"
    known = "; ".join(f"{layout.name} ({layout.summary})" for layout in layouts)
    raise ConfigError(
        f"{checkpoint.path}: is in no layout that is known here (it holds {names} ...); "
        f"known: {known or 'none'}"
    )
