"""Bridging alignment: prompt encoders agree with text by contrastive learning (CoDi, 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from codi.build import Model
from codi.data.batches import Batch, Wanted
from codi.modalities import modality
from codi.training.task import Draws, Task
from codi.types import Media


def contrastive_loss(a: Tensor, b: Tensor, matches: Tensor, log_scale: Tensor) -> Tensor:
    """Return the symmetric contrastive loss of unit vectors `a` and `b` (B, D).

    InfoNCE (Radford et al., 2021) with any number of positives: `matches` (B, B) says which b_j is
    true of a_i, and the target is uniform over them. With the identity it is CLIP's loss.
    """
    with torch.autocast(a.device.type, enabled=False):  # cosines need more than 8 bits
        scores = log_scale.float().exp() * a.float() @ b.float().T

    def one_way(logits: Tensor, positive: Tensor) -> Tensor:
        weights = positive / positive.sum(1, keepdim=True).clamp_min(1.0)
        entropy = -(weights * weights.clamp_min(1e-12).log()).sum(1)
        return (-(weights * log_softmax(logits, dim=1)).sum(1) - entropy).mean()

    positive = matches.to(scores.dtype)
    return 0.5 * (one_way(scores, positive) + one_way(scores.T, positive.T))


@dataclass(frozen=True)
class AlignConfig:
    """Align the prompt encoder of `modality` with that of `bridge`.

    The bridge is text in all of CoDi. With another, sounds and pictures of the same clips say, the
    pairs are contrasted as they are: an alignment without a bridge, to compare with.

    Attributes:
        union: weight of a term in which the interpolation of two captions' embeddings must match
            what both are true of, so that mixing prompts means "and" (CoDi, 3.2).
        attract: weight of the mean squared distance to a caption that tells all that is shown.
            Contrast is content when the true caption is the nearest; diffusers that are trained
            with one modality as prompt and used with another want both in one place (the modality
            gap, Liang et al., 2022).
        words: weight of a term that contrasts captions of the modalities in `vocabulary` with
            complete captions. It stands in for what CLIP's text encoder knows before it is frozen:
            words for what pictures do not show.
    """

    modality: str
    bridge: str = "text"
    union: float = 0.0
    attract: float = 0.0
    words: float = 0.0
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that what needs captions has them.

        Raises:
            ValueError: a term about captions where the bridge is not captions.
        """
        about_captions = self.union or self.attract or self.words
        if about_captions and not modality(self.bridge).is_caption:
            raise ValueError(
                f"bridge is {self.bridge}; union, attract and words are about captions: leave them "
                "out, or use a bridge of text"
            )

    def build(self, model: Model) -> Task:
        """Return the task."""
        return Align(model, self)


class Align(Task):
    """Contrast the embeddings of a modality with those of captions of it."""

    def __init__(self, model: Model, config: AlignConfig) -> None:
        super().__init__(model)
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def wanted(self) -> Wanted:
        """Return media of the modality and captions of what it shows."""
        own, bridge = self.config.modality, self.config.bridge
        media = (own,) if modality(bridge).is_caption else (own, bridge)
        return Wanted(media=media, captions=(own,))

    @property
    def parts(self) -> list[str]:
        """Return both encoders."""
        return self.model.config.parts(("encoders",), [self.config.bridge, self.config.modality])

    @property
    def default_train(self) -> tuple[str, ...]:
        """Return the modality's encoder; the bridge is frozen."""
        own = self.model.config.parts(("encoders",), [self.config.modality])
        return (*(f"{part}.*" for part in own), "log_scale")

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the contrastive terms."""
        del draws
        c = self.config
        text, other = self.model.encoder(c.bridge), self.model.encoder(c.modality)
        log_scale = self.log_scale.clamp(max=math.log(100.0))
        shown = other.embed(batch.media[c.modality])
        said = text.embed(self._bridge(batch))
        true = torch.eye(len(batch), dtype=torch.bool)
        if modality(c.bridge).is_caption:  # a caption may be true of several
            true = batch.matches(batch.captions)
        true = true.to(shown.device)
        terms = {"contrastive": contrastive_loss(said, shown, true, log_scale)}
        if c.attract:
            told = text.embed([x.text for x in batch.write_captions((c.modality,), complete=1.0)])
            terms["attract"] = c.attract * (shown - told).square().sum(-1).mean()
        if c.union:
            second = batch.write_captions((c.modality,))
            both = normalize(said + text.embed([x.text for x in second]), dim=-1)
            also = true & batch.matches(second).to(true.device)
            terms["union"] = c.union * contrastive_loss(both, shown, also, log_scale)
        if c.words:
            some = batch.write_captions(c.vocabulary)
            every = batch.write_captions((c.bridge,), complete=1.0)
            terms["words"] = c.words * contrastive_loss(
                text.embed([x.text for x in some]),
                text.embed([x.text for x in every]),
                batch.matches(some).to(true.device),
                log_scale,
            )
        return terms

    def _bridge(self, batch: Batch) -> Media:
        """Return what the bridge's encoder sees."""
        bridge = self.config.bridge
        return batch.texts if modality(bridge).is_caption else batch.media[bridge]

    def finish(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Measure the mean embedding of encoders that were trained here, or never measured."""
        pairs = list(batches())
        c = self.config
        media = {
            c.modality: (b.media[c.modality] for b in pairs),
            c.bridge: (self._bridge(b) for b in pairs),
        }
        for name, samples in media.items():
            encoder = self.model.encoder(name)
            never_measured = not bool(encoder.mean.any())  # a published encoder, used as it is
            if never_measured or any(p.requires_grad for p in encoder.parameters()):
                encoder.calibrate(samples)
