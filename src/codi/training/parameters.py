"""Which parameters a stage trains, and the values that training begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import nn

from codi.build import Model, ModelConfig, load_config
from codi.config import ConfigError
from codi.training.recipe import Recipe
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
    """Return the trained model that a recipe starts from, with the parts that have weights.

    Parameters that the recipe calls `fresh` are as `fresh_model` makes them.

    Raises:
        ConfigError: there is no such model, or nothing is called what is to be fresh.
    """
    folder = find_model(name_or_folder)
    config = load_config(folder)
    parts = [part for part in config.parts() if part_files(folder, part)]
    model = load_model(folder, parts)
    if recipe.fresh:
        begun = fresh_model(config, parts, recipe.seed).state_dict()
        given = model.state_dict()
        given |= {name: begun[name] for name in matching(given, recipe.fresh, "fresh")}
        model.load_state_dict(given)
    return model
