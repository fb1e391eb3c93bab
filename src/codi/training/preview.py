"""Samples of a model in training: what its streams look and sound like now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codi.build import ROLES, Model
from codi.config import ConfigError
from codi.data.batches import Batch
from codi.pipeline import Condition, Pipeline


def preview(
    model: Model, folder: Path, streams: Sequence[str], batch: Batch, steps: int = 12
) -> dict[str, np.ndarray]:
    """Return a picture for each stream, of samples prompted by the batch's first captions.

    Parts that the stage does not train are read from `folder`; when one is not trained yet, there
    is nothing to show and the result is empty.
    """
    if not batch.captions:
        return {}
    borrowed = Model(model.config, [])
    for role in ROLES:
        for name, module in model.role(role).items():
            borrowed.role(role)[name] = module
    device = str(next(model.parameters()).device)
    pipeline = Pipeline(model.config, folder, device=device, model=borrowed)
    pictures: dict[str, np.ndarray] = {}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in streams}
    try:
        for seed, caption in enumerate(batch.captions[:4]):
            made = pipeline.generate(
                [Condition("text", caption.text)], streams, seeds=[seed], steps=steps
            )
            for name in streams:
                rows[name].append(model.config.media(name).picture(made[name][0]))
    except ConfigError:
        return {}
    for name, found in rows.items():
        width = max(picture.shape[1] for picture in found)
        padded = [
            np.pad(p, ((0, 2), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in found
        ]
        pictures[name] = np.concatenate(padded, axis=0)
    return pictures


def save_pictures(pictures: dict[str, np.ndarray], folder: Path, step: int) -> None:
    """Write the pictures of one step."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{step:06d}-{name}.png")
