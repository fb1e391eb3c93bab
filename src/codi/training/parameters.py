"""Which parameters a stage trains, and the values that training begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from codi.build import Model, ModelConfig
from codi.config import ConfigError
from codi.training.recipe import Recipe, Stage
from codi.training.task import Task
from codi.weights import find_model, load_model, part_files


def matching(names: Iterable[str], globs: Iterable[str], where: str) -> set[str]:
    """Return the names of parameters that the globs match; "!glob" takes some out again.

    Raises:
        ConfigError: a glob that matches none.
    """
    everything = list(names)
    chosen: set[str] = set()
    for glob in globs:
        pattern = glob.removeprefix("!")
        found = {name for name in everything if fnmatchcase(name, pattern)}
        if not found:
            roots = sorted({".".join(name.split(".")[:2]) for name in everything})
            raise ConfigError(
                f"{where}: no parameter matches {pattern!r}; they begin with {', '.join(roots)}"
            )
        chosen = chosen - found if glob.startswith("!") else chosen | found
    return chosen


def select_parameters(
    module: nn.Module, globs: Iterable[str], stage: str
) -> dict[str, nn.Parameter]:
    """Return the parameters that the globs name; "!glob" excludes. Freeze all the others.

    Raises:
        ConfigError: a glob that matches no parameter.
    """
    everything = dict(module.named_parameters())
    chosen = matching(everything, globs, f"stage {stage!r}")
    for name, p in everything.items():
        p.requires_grad_(name in chosen)
    return {name: everything[name] for name in everything if name in chosen}


def tasks_of(stage: Stage, model: Model, recipe: str) -> list[Task]:
    """Return the tasks of a stage over the parts of a model; errors name the recipe."""
    return [o.build(model, stage.where(recipe, i)) for i, o in enumerate(stage.objectives)]


def parts_of(stage: Stage, config: ModelConfig, recipe: str) -> list[str]:
    """Return the parts ("role.name") that the tasks of a stage use, without building any."""
    drafts = tasks_of(stage, Model(config, []), recipe)
    return list(dict.fromkeys(part for task in drafts for part in task.parts))


def trained_by(
    stage: Stage, model: Model, tasks: Sequence[Task]
) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """Return model and tasks as one module, and what of it the stage trains; freeze all the rest.

    Raises:
        ConfigError: a glob of the stage that matches no parameter.
    """
    everything = Trainable(model, tasks)
    globs = stage.train or tuple(dict.fromkeys(g for task in tasks for g in task.default_train))
    return everything, select_parameters(everything, globs, stage.name)


class Trainable(nn.Module):
    """The model and the tasks' own parameters under the names recipes use."""

    def __init__(self, model: Model, tasks: Sequence[Task]) -> None:
        super().__init__()
        for role, parts in model.named_children():
            self.add_module(role, parts)
        for task in tasks:
            for name, p in task.named_parameters(recurse=False):
                if name not in dict(self.named_parameters(recurse=False)):
                    self.register_parameter(name, p)
                else:
                    setattr(task, name, getattr(self, name))  # one parameter for all objectives


def fresh_model(config: ModelConfig, parts: Iterable[str], seed: int) -> Model:
    """Return a model whose parts are initialised from (seed, part) alone."""
    model = Model(config, [])
    for part in parts:
        role, name = part.split(".", 1)
        digest = hashlib.sha256(f"{seed}/{part}".encode()).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest[:8], "little") % 2**63)
            model.role(role)[name] = config.part(role, name).build()
    return model


def starting_model(name_or_folder: str, recipe: Recipe) -> Model:
    """Return the weights that a recipe starts from, in the parts of its own model that they fill.

    Where the recipe's model has more rows of something, as of tokens in a longer vocabulary, the
    given ones come first and the others are fresh. Parameters that the recipe calls `fresh` are as
    `fresh_model` makes them.

    Raises:
        ConfigError: there is no such model, its weights do not fit the recipe's model, or nothing
            is called what is to be fresh.
    """
    folder = find_model(name_or_folder)
    config = recipe.model_config()
    parts = [part for part in config.parts() if part_files(folder, part)]
    given = load_model(folder, parts).state_dict()
    model = fresh_model(config, parts, recipe.seed)
    begun = model.state_dict()
    fresh = matching(begun, recipe.fresh, "fresh")
    if only := sorted(given.keys() ^ begun.keys()):
        raise ConfigError(
            f"recipe {recipe.name}: starts_from = {name_or_folder!r} and its model differ in "
            f"{only[0]}; give it the model of those weights"
        )
    for name, value in begun.items():
        if name not in fresh:
            begun[name] = _grown(given[name], value, f"starts_from = {name_or_folder!r}: {name}")
    model.load_state_dict(begun)
    return model


def _grown(given: Tensor, fresh: Tensor, where: str) -> Tensor:
    """Return `given`, followed by the rows that `fresh` has more.

    Raises:
        ConfigError: it is no matter of more rows.
    """
    if given.shape == fresh.shape:
        return given
    if not given.dim() or given.shape[1:] != fresh.shape[1:] or len(given) > len(fresh):
        raise ConfigError(
            f"{where} is {tuple(given.shape)} there and {tuple(fresh.shape)} in the recipe's "
            "model; only rows can be added"
        )
    return torch.cat([given, fresh[len(given) :]])
