"""The measured model's own prompt encoders as extractors: SIM (CoDi, Eq. 4), and retrieval.

They need no other weights, and judge a model by itself: fit for coherence, and no stand-in for FID.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from codi.config import ConfigError
from codi.evaluation.extractors.base import Extractor, float32, tensors_digest
from codi.modalities import modality as modality_entry
from codi.pipeline import Pipeline
from codi.weights import missing_parts

_SPEECHLESS = "."
"""What stands for an empty sentence, which a model may make and no prompt may be."""


class OwnExtractor(Extractor):
    """Embeddings (n, D) of media of every modality that the model takes as a prompt.

    Raises:
        ConfigError: the model has no encoder of a modality.
    """

    name = "codi"
    preprocessing = "as prompts of the model"

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.source = pipeline.config.name

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Return the digest of all encoders that the model has, which are loaded for it."""
        config, folder = self.pipeline.config, self.pipeline.folder
        absent = [] if folder is None else missing_parts(folder, config)
        present = [
            n for n in config.modalities if not {*config.parts(("encoders",), [n])} & {*absent}
        ]
        self.pipeline.require([], present, {})
        encoders = self.pipeline.model.role("encoders")
        return tensors_digest(*(encoders[name] for name in sorted(encoders)))

    @torch.no_grad()
    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return embeddings of length 1; a sentence without words counts as a full stop."""
        if modality_entry(modality).is_caption:
            items = [item if item.strip() else _SPEECHLESS for item in items]
        return {"features": self._embedded(modality, items)}

    def _embedded(self, modality: str, items: Sequence[Any]) -> np.ndarray:
        """Return the embeddings (n, D) of media, as prompts of the model."""
        media = self.pipeline.config.media(modality)
        self.pipeline.require([], [modality], {})
        x: Any = media.to_tensor([media.to_array(media.load(item)[0]) for item in items])
        if isinstance(x, torch.Tensor):
            x = x.to(self.pipeline.device, self.pipeline.compute_dtype)
        return float32(self.pipeline.model.encoder(modality).embed(x))


class OwnFrameExtractor(OwnExtractor):
    """Embeddings (n, F, D) of the frames of clips, each as a picture alone.

    Raises:
        ConfigError: the model has no encoder of pictures.
    """

    name = "codi_frames"
    preprocessing = "every frame as a prompt of the model"

    @torch.no_grad()
    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return embeddings of length 1 of the frames of clips.

        Raises:
            ConfigError: a modality without frames, or a model without pictures.
        """
        stills = [
            n for n in self.pipeline.config.modalities if modality_entry(n).part_of == modality
        ]
        if not stills:
            raise ConfigError(
                f"extractor {self.name}: model {self.source} knows no pictures that are frames of "
                f"{modality}; name codi, which looks at all of it"
            )
        clips = [
            self._embedded(stills[0], [Image.fromarray(frame) for frame in item.frames])
            for item in items
        ]
        return {"features": np.stack(clips)}
