"""Samples of a model in training: what its streams, or its codecs, look and sound like now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from codi.build import ROLES, Model
from codi.data.batches import Batch
from codi.modalities import modality
from codi.pipeline import Condition, Pipeline
from codi.types import Media
from codi.weights import missing_parts


def preview(
    model: Model, folder: Path, streams: Sequence[str], batch: Batch, steps: int = 12
) -> dict[str, np.ndarray]:
    """Return a picture for each stream, of samples prompted by the batch's first captions.

    Parts that the stage does not train are read from `folder`; when one is not trained yet, or
    nothing reads captions, there is nothing to show and the result is empty.

    Raises:
        ConfigError: samples cannot be made for another reason, such as numbers that are not finite.
    """
    config = model.config
    reads = [n for n, m in config.modalities.items() if m.encoder and modality(n).is_caption]
    if not (batch.captions and reads) or _absent(model, folder, streams, reads[0]):
        return {}
    borrowed = Model(config, [])
    for role in ROLES:
        for name, module in model.role(role).items():
            borrowed.role(role)[name] = module
    device = str(next(model.parameters()).device)
    pipeline = Pipeline(config, folder, device=device, model=borrowed)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in streams}
    for seed, caption in enumerate(batch.captions[:4]):
        prompt = Condition(reads[0], caption.text)
        made = pipeline.generate([prompt], streams, seeds=[seed], steps=steps)
        for name in streams:
            rows[name].append(config.media(name).picture(made[name][0]))
    return {name: _stacked(found, axis=0) for name, found in rows.items()}


def _absent(model: Model, folder: Path, streams: Sequence[str], prompt: str) -> set[str]:
    """Return the parts that sampling needs and that are neither in the model nor in the folder."""
    config = model.config
    needed = config.sampling_parts([prompt], streams) + config.parts(("codecs",), streams)
    present = {f"{role}.{name}" for role in ROLES for name in model.role(role)}
    return set(needed) & set(missing_parts(folder, config)) - present


@torch.no_grad()
def reconstructions(model: Model, name: str, x: Media) -> np.ndarray:
    """Return a picture of media of one modality, each beside what its codec makes of it."""
    media, codec = model.config.media(name), model.codec(name)
    pairs = zip(media.from_tensor(x), media.from_tensor(codec.decode(codec.encode(x))), strict=True)
    rows = [_stacked([media.picture(item) for item in pair], axis=1) for pair in pairs]
    return _stacked(rows, axis=0)


def _stacked(pictures: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Return pictures (H, W, 3) in a row or a column, white between them and where one is short."""
    other = 1 - axis
    longest = max(picture.shape[other] for picture in pictures)
    padded = []
    for picture in pictures:
        margins = [(0, 0)] * 3
        margins[axis], margins[other] = (0, 2), (0, longest - picture.shape[other])
        padded.append(np.pad(picture, margins, constant_values=255))
    return np.concatenate(padded, axis=axis)


def save_pictures(pictures: dict[str, np.ndarray], folder: Path, step: int) -> None:
    """Write the pictures of one step."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{step:06d}-{name}.png")
