"""Recipes: stages of training as rows of a TOML file.

A stage trains some parts of a model on one or several objectives, with its own optimiser settings.
The paper's curriculum is such a file, and so is any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codi.build import Model, ModelConfig, load_config
from codi.config import ConfigError, build, load_toml, override, unknown
from codi.data.source import source_config
from codi.folders import PRESETS
from codi.training.align import AlignConfig
from codi.training.denoise import DenoiseConfig
from codi.training.joint import JointConfig
from codi.training.optimiser import OPTIMISERS
from codi.training.reconstruct import ReconstructConfig, VocodeConfig
from codi.training.task import Task

TASKS: dict[str, Any] = {
    "reconstruct": ReconstructConfig,
    "vocode": VocodeConfig,
    "align": AlignConfig,
    "denoise": DenoiseConfig,
    "joint": JointConfig,
}
"""Configuration class of every objective, by the `task` a recipe names. Add your own here."""


@dataclass(frozen=True)
class Objective:
    """One objective of a stage.

    Attributes:
        task: a name of `TASKS`; `settings` are the fields of its configuration.
        data: shares of the recipe's data sources.
        share: how often this objective's turn comes, against the stage's other objectives.
        batch: samples a step; the stage's by default.
    """

    task: str
    data: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0
    batch: int | None = None

    def build(self, model: Model, where: str) -> Task:
        """Return the task on a model.

        Raises:
            ConfigError: as `config`, or settings that do not fit the model.
        """
        config = self.config(where)
        try:
            task: Task = config.build(model)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        return task

    def config(self, where: str) -> Any:
        """Return the task's configuration.

        Raises:
            ConfigError: no such task, or a mistake in its settings.
        """
        if self.task not in TASKS:
            raise ConfigError(f"{where}: " + unknown("task", self.task, TASKS))
        return build(TASKS[self.task], self.settings, f"{where}: settings")


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: also the folder of its checkpoints.
        objectives: what is minimised; each step takes one of them, drawn by share.
        train: globs over parameter names ("diffusers.audio.*"); "!glob" takes some out again. What
            the tasks train by default when empty. A glob without a match is an error.
        starts_from: parts that begin as a copy of another, {"encoders.video" = "encoders.image"}.
        batch, batch_scale: samples in a step, of objectives without a number of their own; and what
            all of these are multiplied by, for a smaller machine.
        optimiser: "adamw" or "muon" (`codi.training.optimiser`); a step of "muon" is dearer, and
            for convolutions worth about two of the others.
        warmup, decay: linear warm-up steps, then "cosine" to a tenth or "constant".
        ema: decay of the moving average that becomes the stage's result; 0 for none.
        overrides: "a.b=c" assignments on the model's configuration for this stage alone, after the
            recipe's own: a curriculum on sizes and rates of media. Shapes of weights must stay.
    """

    name: str
    objectives: tuple[Objective, ...]
    steps: int
    batch: int
    learning_rate: float
    train: tuple[str, ...] = ()
    starts_from: dict[str, str] = field(default_factory=dict)
    optimiser: str = "adamw"
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    decay: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0
    ema: float = 0.995
    accumulate: int = 1
    batch_scale: float = 1.0
    overrides: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: nothing to minimise, or a number of steps, batches or samples below 1.
        """
        if not sum(objective.share for objective in self.objectives) > 0:
            raise ValueError(f"stage {self.name!r} has no objective with a share above 0")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(unknown("optimiser", self.optimiser, OPTIMISERS))
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.batch_scale <= 0:
            raise ValueError(f"batch_scale is {self.batch_scale:g}; give a number above 0")

    def size(self, objective: Objective) -> int:
        """Return how many samples a step of an objective has, 1 at least."""
        return max(round((objective.batch or self.batch) * self.batch_scale), 1)

    def where(self, recipe: str, index: int) -> str:
        """Return the place of an objective, for error messages."""
        return f"{recipe}: stage {self.name!r}, objective {index + 1}"


@dataclass(frozen=True)
class Recipe:
    """A model and the stages that train it.

    Attributes:
        model: preset name or TOML file of the model.
        data: tables of the data sources, by name.
        overrides: "a.b=c" assignments on the model's configuration.
        starts_from: a trained model, shipped name or folder, whose parts the run begins with.
        fresh: globs over parameters that begin anew all the same, to learn them again.
    """

    name: str
    model: str
    stage: tuple[Stage, ...]
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    starts_from: str | None = None
    fresh: tuple[str, ...] = ()
    seed: int = 0
    note: str = ""

    def sources(self) -> dict[str, Any]:
        """Return the configuration of every data source."""
        return {
            name: source_config(name, table, f"recipe {self.name}")
            for name, table in self.data.items()
        }

    def model_config(self, stage: Stage | None = None) -> ModelConfig:
        """Return the configuration of the model, or the one that a stage trains it in."""
        return load_config(self.model, (*self.overrides, *(stage.overrides if stage else ())))

    def check(self) -> None:
        """Raise ConfigError for anything that is wrong before any step is taken."""
        self.sources()
        if self.fresh and self.starts_from is None:
            raise ConfigError(
                f"recipe {self.name}: without starts_from everything is fresh; leave fresh out"
            )
        names = [stage.name for stage in self.stage]
        if len(set(names)) < len(names):
            raise ConfigError(f"recipe {self.name}: two stages have one name; rename one")
        self.model_config()
        for stage in self.stage:
            skeleton = Model(self.model_config(stage), [])
            for pair in stage.starts_from.items():
                for part in pair:
                    if part not in skeleton.config.parts():
                        where = f"recipe {self.name}: stage {stage.name!r}, starts_from: "
                        raise ConfigError(where + unknown("part", part, skeleton.config.parts()))
            for i, objective in enumerate(stage.objectives):
                self._check_objective(objective, skeleton, stage.where(self.name, i))

    def _check_objective(self, objective: Objective, skeleton: Model, where: str) -> None:
        task = objective.build(skeleton, where)
        wanted = task.wanted
        try:
            for name in (*wanted.media, *wanted.latents, *wanted.captions):
                skeleton.config.modality(name)
            _ = task.parts, task.default_train
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        for source in objective.data:
            if source not in self.data:
                raise ConfigError(f"{where}: " + unknown("data source", source, self.data))


def load_recipe(name_or_file: str | Path, assignments: Iterable[str] = ()) -> Recipe:
    """Read a recipe: a TOML file, or the name of one that ships ("recipe-tiny").

    A recipe may extend another one, and a stage be like an earlier one: see `recipe-tiny-cpu`,
    which only changes numbers of steps, and `recipe-small`.

    Raises:
        ConfigError: no such recipe (names the nearest), or a mistake in it.
    """
    for candidate in (Path(name_or_file), PRESETS / f"{name_or_file}.toml"):
        if candidate.is_file():
            return read_recipe(load_toml(candidate), candidate, assignments)
    raise ConfigError(unknown("recipe", str(name_or_file), _shipped()))


def read_recipe(table: dict[str, Any], where: Path, assignments: Iterable[str] = ()) -> Recipe:
    """Return the recipe that a table of the file `where` holds; see `load_recipe`."""
    whole = _repeated(_whole(table, where), where)
    recipe = build(Recipe, override(whole, assignments), where)
    recipe.check()
    return recipe


_ITS_OWN = ("name", "note")
"""What a stage never takes from the one that it is like."""


def _repeated(table: dict[str, Any], where: Path) -> dict[str, Any]:
    """Return a recipe's table with what stages take from earlier ones written out.

    `like = "ldm-text"` in a stage takes everything from that one that is not given here, but for
    its name and note. What `[change]` of an extending recipe says of that one reaches it too.

    Raises:
        ConfigError: no stage of that name stands before it.
    """
    rows = table.get("stage")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return table  # which `build` refuses
    stages: dict[str, dict[str, Any]] = {}
    whole = []
    for row in rows:
        fields = dict(row)
        like = fields.pop("like", None)
        if like is not None:
            if like not in [*stages]:
                place = f"{where}: stage {fields.get('name')!r}: like: "
                raise ConfigError(place + unknown("earlier stage", str(like), stages))
            taken = {key: value for key, value in stages[like].items() if key not in _ITS_OWN}
            fields = taken | fields
        stages[str(fields.get("name"))] = fields
        whole.append(fields)
    return table | {"stage": whole}


def _shipped() -> list[str]:
    return [path.stem for path in sorted(PRESETS.glob("recipe-*.toml"))]


def _whole(table: dict[str, Any], where: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a recipe's table with the one it extends merged in.

    `extends = "recipe-tiny"` takes everything from there that is not given here, and
    `[change.<stage>]` replaces fields of single stages. `above` are the files that led here.

    Raises:
        ConfigError: it extends itself, by way of others too; or changes a stage that is not there.
    """
    rest = dict(table)
    base, changes = rest.pop("extends", None), rest.pop("change", {})
    if base is None:
        return table
    sibling = where.with_name(f"{base}.toml")
    source = sibling if sibling.is_file() else PRESETS / f"{base}.toml"
    if not source.is_file():
        raise ConfigError(f"{where}: extends: " + unknown("recipe", str(base), _shipped()))
    chain = (*above, where.resolve())
    if source.resolve() in chain:
        names = " -> ".join([*(file.stem for file in chain), source.stem])
        raise ConfigError(
            f"{where}: extends = {base!r} leads back to itself ({names}); name another recipe"
        )
    whole = _whole(load_toml(source), source, chain) | rest
    stages = {row["name"]: row for row in whole["stage"]}
    for name, fields in changes.items():
        if name not in stages:
            raise ConfigError(f"{where}: [change] " + unknown("stage", name, stages))
        stages[name] = stages[name] | fields
    return whole | {"stage": list(stages.values())}
