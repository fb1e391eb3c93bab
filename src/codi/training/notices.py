"""What a person should know before a stage of training begins, in lines."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from codi.build import ROLES, Model
from codi.data.batches import keyed_generator
from codi.data.store import Store
from codi.modalities import modality
from codi.training.norms import part_of
from codi.training.recipe import Stage
from codi.weights import part_files

_TOLD = 4
"""Settings that are named of all that differ."""

_LOOKED_AT = 200
"""Captions of a source, for each modality, that are looked at."""


def differences(before: Any, now: Any) -> str:
    """Return how settings of now differ from those `before`, in a line; nothing if they do not.

    What was trained before settings were kept differs in nothing.
    """
    if before is None:
        return ""
    was, are = dict(_flat(before)), dict(_flat(json.loads(json.dumps(now))))
    changed = [
        f"{name} = {was.get(name, 'nothing')!r} (now {are.get(name, 'nothing')!r})"
        for name in dict.fromkeys([*was, *are])
        if was.get(name) != are.get(name)
    ]
    more = f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
    return ", ".join(changed[:_TOLD]) + more


def _flat(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested tables and lists, each by its path."""
    nested = settings.items() if isinstance(settings, dict) else enumerate(settings)
    for key, value in nested:
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict | list):
            yield from _flat(value, here)
        else:
            yield here, value


def untrained_parts(
    stage: Stage, model: Model, trained: Collection[str], folder: Path
) -> Iterator[str]:
    """Yield which parts are used as they were built, because no stage has trained them.

    Args:
        stage: which one begins.
        model: with the parts that it uses.
        trained: names of the parameters that it trains.
        folder: of the weights there are.
    """
    moving = {part_of(name) for name in trained}
    for role in ROLES:
        for part in (f"{role}.{name}" for name in model.role(role)):
            has_weights = part_files(folder, stage.starts_from.get(part, part))
            if part not in moving and not has_weights:
                yield f"{part} is used frozen and no stage has trained it"


def cut_captions(
    model: Model, sources: Mapping[str, tuple[Store, Collection[str]]], seed: int
) -> Iterator[str]:
    """Yield which parts do not read the captions of a source to their end, and how many of them.

    Args:
        model: with the parts that are used.
        sources: by name, the data and the modalities whose captions are read.
        seed: of the choice of captions.
    """
    written = [name for name in model.config.modalities if modality(name).is_caption]
    readers = {
        f"{role}.{name}": model.role(role)[name]
        for part in model.config.parts(("encoders", "codecs"), written)
        for role, name in [part.split(".", 1)]
        if name in model.role(role)
    }
    for source, (store, shown) in sources.items():
        rng = keyed_generator(seed, source)
        texts = [
            store.source.caption(store.records[i], by, rng).text
            for by in sorted(shown)
            for i in rng.integers(len(store), size=_LOOKED_AT).tolist()
        ]
        for part, reader in readers.items():
            if cut := len(reader.unread(texts)):  # type: ignore[operator]
                yield (
                    f"{part} does not read {cut / len(texts):.0%} of what is written about "
                    f"{source!r} to the end; choose shorter captions (`captions` of the source), a "
                    "longer `length`, or a tokenizer that knows the words (codi data tokenizer "
                    "--extend)"
                )
