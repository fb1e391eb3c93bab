"""Contexts for training diffusers: what a stream is prompted with, and when with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from codi.build import Model
from codi.config import ConfigError
from codi.data.batches import Batch
from codi.encoders.mixing import of_one_length
from codi.modalities import modality
from codi.training.task import Draws
from codi.types import Media


@dataclass(frozen=True)
class PromptConfig:
    """How prompts are drawn.

    Attributes:
        shares: how often a prompt is of each modality, e.g. {text = 0.8, image = 0.2}.
        drop: share of samples without any prompt, for classifier-free guidance.
        mix: share of text prompts that are an interpolation of two captions.
        noise: deviation of noise added to contexts, against the modality gap.
    """

    shares: dict[str, float] = field(default_factory=lambda: {"text": 1.0})
    drop: float = 0.1
    mix: float = 0.0
    noise: float = 0.0


@torch.no_grad()
def draw_contexts(
    model: Model,
    batch: Batch,
    texts: Sequence[str],
    config: PromptConfig,
    draws: Draws,
    shown_by: Sequence[str] = (),
) -> Tensor:
    """Return contexts (B, L, D); a dropped prompt is its encoder's context of no prompt.

    Prompt encoders are frozen here, and each encodes the samples it was drawn for. `texts` are the
    text prompts; further captions to mix them with are of the modalities in `shown_by`.
    """
    size = len(batch)
    names = list(config.shares)
    if not names:
        raise ConfigError("prompts name no modality; give shares, e.g. { text = 1.0 }")
    shares = torch.tensor([config.shares[name] for name in names])
    chosen = torch.bucketize(draws.uniform(size), (shares / shares.sum()).cumsum(0)[:-1])
    drawn: list[Tensor] = []
    told: list[Tensor] = []
    for i, name in enumerate(names):
        rows = (chosen == i).nonzero()[:, 0]
        if len(rows):
            media = _media(batch, texts, name, rows)
            found = model.encoder(name)(media)
            if config.mix and name not in batch.media:
                found = _mixed(model, batch, name, rows, found, config, draws, shown_by)
            drawn.append(rows)
            told.append(found)
    order = torch.cat(drawn).argsort()
    contexts = torch.cat(of_one_length(told))[order]
    if config.noise:
        contexts = contexts + config.noise * draws.normal(*contexts.shape).to(contexts)
    dropped = draws.uniform(size) < config.drop
    for i, name in enumerate(names):
        rows = (dropped & (chosen == i)).nonzero()[:, 0]
        if len(rows):
            contexts[rows] = model.encoder(name).unprompted(_media(batch, texts, name, rows))
    return contexts


def _media(batch: Batch, texts: Sequence[str], name: str, rows: Tensor) -> Media:
    """Return the media of modality `name` of some samples; captions where there are none."""
    if name in batch.media:
        media = batch.media[name]
        return media[rows.to(media.device)]
    return [texts[i] for i in rows]


def _mixed(
    model: Model,
    batch: Batch,
    name: str,
    rows: Tensor,
    first: Tensor,
    config: PromptConfig,
    draws: Draws,
    shown_by: Sequence[str],
) -> Tensor:
    """Return contexts of which a share is interpolated with those of other true captions."""
    others = batch.write_captions(shown_by)
    second = model.encoder(name)([others[i].text for i in rows])
    weight = (0.3 + 0.4 * draws.uniform(len(rows))).to(first)
    mixed = (draws.uniform(len(rows)) < config.mix).to(first.device)
    weight = torch.where(mixed, weight, torch.ones_like(weight))[:, None, None]
    return weight * first + (1.0 - weight) * second


def prompt_media(config: PromptConfig) -> tuple[str, ...]:
    """Return the modalities whose media prompts need, beside captions."""
    return tuple(name for name in config.shares if not modality(name).is_caption)


@torch.no_grad()
def clean_latents(model: Model, name: str, batch: Batch, texts: Sequence[str]) -> Tensor:
    """Return z_0 (B, ...) of a modality: cached ones, or those of `texts` encoded now."""
    if modality(name).is_caption:
        return model.codec(name).encode(list(texts))
    return batch.latents[name]
