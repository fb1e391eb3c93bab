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
        mix: share of prompts that are interpolated with a caption, as a request of several prompts
            is (CoDi, section 3.2): a caption with another of the same sample, a picture with what
            is said of its sound.
        mix_captions: modalities whose captions those are; none says those of the task.
        bridge: modality of the captions themselves.
        noise: deviation of noise added to contexts, against the modality gap.
    """

    shares: dict[str, float] = field(default_factory=lambda: {"text": 1.0})
    drop: float = 0.1
    mix: float = 0.0
    mix_captions: tuple[str, ...] = ()
    bridge: str = "text"
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would fail, or be ignored, in the middle of a training.

        Raises:
            ValueError: an unknown modality, a share that is none, captions to mix with that no
                prompt is mixed with, or a bridge that is no captions.
        """
        for name in (*self.shares, *self.mix_captions, self.bridge):
            modality(name)
        for name in ("drop", "mix"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share:g}; give a share from 0 to 1")
        if self.mix_captions and not self.mix:
            raise ValueError("mix_captions are of no use with mix = 0; give mix, or leave them out")
        if not modality(self.bridge).is_caption:
            raise ValueError(f"bridge is {self.bridge}; it is the modality of captions")

    @property
    def encoded(self) -> tuple[str, ...]:
        """Return the modalities whose prompt encoders it takes."""
        return tuple(dict.fromkeys([*self.shares, *([self.bridge] if self.mix else [])]))


@torch.no_grad()
def draw_contexts(
    model: Model,
    batch: Batch,
    texts: Sequence[str],
    config: PromptConfig,
    draws: Draws,
    shown_by: Sequence[str] = (),
    complete: float = 0.0,
) -> Tensor:
    """Return contexts (B, L, D); a dropped prompt is its encoder's context of no prompt.

    Prompt encoders are frozen here, and each encodes the samples it was drawn for. `texts` are the
    text prompts; further captions to mix prompts with are of the modalities in
    `config.mix_captions`, or else in `shown_by`, and a share of them, `complete`, tells everything.
    """
    size = len(batch)
    names = list(config.shares)
    if not names:
        raise ConfigError("prompts name no modality; give shares, e.g. { text = 1.0 }")
    spoken_of = config.mix_captions or shown_by
    if config.mix and not spoken_of:
        raise ConfigError("prompts are mixed with no captions; give mix_captions, or captions")
    shares = torch.tensor([config.shares[name] for name in names])
    chosen = torch.bucketize(draws.uniform(size), (shares / shares.sum()).cumsum(0)[:-1])
    drawn: list[Tensor] = []
    encoded: list[Tensor] = []
    for i, name in enumerate(names):
        rows = (chosen == i).nonzero()[:, 0]
        if len(rows):
            media = _media(batch, texts, name, rows)
            found = model.encoder(name)(media)
            if config.mix:
                others = batch.write_captions(spoken_of, complete)
                second = model.encoder(config.bridge)([others[i].text for i in rows])
                found = _mixed(found, second, config.mix, draws)
            drawn.append(rows)
            encoded.append(found)
    order = torch.cat(drawn).argsort()
    contexts = torch.cat(of_one_length(encoded))[order]
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


def _mixed(first: Tensor, second: Tensor, share: float, draws: Draws) -> Tensor:
    """Return contexts (B, L, D) of which a share is interpolated with others."""
    first, second = of_one_length([first, second])
    weight = (0.3 + 0.4 * draws.uniform(len(first))).to(first)
    mixed = (draws.uniform(len(first)) < share).to(first.device)
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
