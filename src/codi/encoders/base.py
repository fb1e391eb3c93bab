"""The contract of every prompt encoder: a medium -> a vector in one space shared by all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from codi.types import Media


class PromptEncoder(nn.Module, ABC):
    """Embed media of one modality in the space of all prompts (CoDi, section 3.2).

    Subclasses return features; here they become an embedding of unit length, trained to agree
    across modalities, and a context of L tokens for the diffusers. Embeddings of different encoders
    sit apart even when aligned (the modality gap), so each encoder subtracts its own mean, which
    `calibrate` measures, before the context is formed. With `unit_context` the context is the
    embedding as it is, as in the released CoDi, and the mean is neither used nor stored.
    """

    mean: Tensor

    def __init__(self, features: int, context_width: int, unit_context: bool = False) -> None:
        super().__init__()
        self.unit_context = unit_context
        self.to_embedding = nn.Linear(features, context_width)
        self.register_buffer("mean", torch.zeros(context_width), persistent=not unit_context)

    @abstractmethod
    def features(self, x: Media) -> Tensor:
        """Return the features (B, D') of a medium."""

    def embed(self, x: Media) -> Tensor:
        """Return the embedding (B, D) of unit length."""
        return self.project(self.features(x))

    def project(self, features: Tensor) -> Tensor:
        """Return the embedding (B, D) of features (B, D')."""
        return normalize(self.to_embedding(features).float(), dim=-1)

    def forward(self, x: Media) -> Tensor:
        """Return the context (B, L, D); here L = 1."""
        return self.context(self.embed(x))

    def context(self, embedding: Tensor) -> Tensor:
        """Return the context (B, 1, D) of embeddings (B, D): centred, of about unit variance."""
        if self.unit_context:
            return embedding[:, None]
        return ((embedding - self.mean) * embedding.shape[-1] ** 0.5)[:, None]

    def unread(self, x: Media) -> list[str]:
        """Return, for a person, what of media is not read: a line for each; none is the default."""
        del x
        return []

    def unprompted(self, x: Media) -> Tensor:
        """Return the context (B, 1, D) of no prompt in place of `x`, for guidance.

        It is zero, the mean of all prompts; with `unit_context` it is the context of a medium that
        shows nothing (an empty sentence, grey pictures, silence), as in the released CoDi.
        """
        if self.unit_context:
            return self(torch.zeros_like(x) if isinstance(x, Tensor) else [""] * len(x))
        return self.mean.new_zeros(len(x), 1, self.mean.shape[0])

    @torch.no_grad()
    def calibrate(self, samples: Iterable[Media]) -> None:
        """Measure the mean embedding of `samples`."""
        self.mean.copy_(torch.cat([self.embed(x) for x in samples]).mean(0))
