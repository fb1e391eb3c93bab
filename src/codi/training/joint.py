"""Joint generation: streams denoised together learn to hear each other (CoDi, 3.4, Eq. 3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from codi.build import Model
from codi.config import ConfigError, unknown
from codi.data.batches import Batch, Wanted
from codi.diffusion import LOSS_WEIGHTS
from codi.modalities import modality
from codi.model import CoDi
from codi.training.align import contrastive_loss
from codi.training.denoise import denoising_loss, draw_steps
from codi.training.prompts import PromptConfig, clean_latents, draw_contexts, prompt_media
from codi.training.task import Draws, Task
from codi.types import Latents


@dataclass(frozen=True)
class JointConfig:
    """Train the environment parts of two or more `streams` on data that has all of them.

    Attributes:
        streams: modalities denoised together.
        captions: modalities whose captions prompt them.
        complete: share of captions that tell everything; the others tell a random part.
        timesteps: "shared", "independent" or "mixed" (either, by chance) t of the streams.
        clean: how often one of the streams is exactly clean (t = 0), so that it only informs.
        given: shares of the streams in being that one, e.g. {video = 0.8, audio = 0.2}; alike
            when empty, for all but a stream that alone is predicted.
        predicted: streams with a denoising term, all by default. The others are only listened to,
            which spares their diffusers where nothing of them is to learn; with none at all, V is
            trained by contrast alone.
        noisier: 1 draws t uniformly, more favours the noisy end (see `draw_steps`): there, where a
            stream's own latent tells least, the others have most to say.
        truncate: shorten the prompts, as the paper does where text is generated (4.1): the streams
            must tell each other the rest.
        contrast: weight of the contrastive term that aligns V of the streams.
        contrast_slots: weight of a further one, between slots of streams that have time: the same
            instant of the same clip agrees. It teaches V when things happen, at no diffuser's cost.
    """

    streams: tuple[str, ...]
    captions: tuple[str, ...]
    complete: float = 0.0
    prompts: PromptConfig = field(default_factory=PromptConfig)
    timesteps: str = "mixed"
    clean: float = 0.33
    given: dict[str, float] = field(default_factory=dict)
    predicted: tuple[str, ...] | None = None
    noisier: float = 1.0
    truncate: bool = False
    contrast: float = 0.1
    contrast_slots: float = 0.0
    weight: str = "uniform"

    def __post_init__(self) -> None:
        """Check what only a name says.

        Raises:
            ValueError: an unknown weighting, a given or predicted stream that is none, nothing to
                learn, or a `noisier` below 1.
        """
        if self.weight not in LOSS_WEIGHTS:
            raise ValueError(unknown("weight", self.weight, LOSS_WEIGHTS))
        if self.noisier < 1:
            raise ValueError(f"noisier is {self.noisier:g}; give 1 (uniform) or more")
        if len(self.denoised) == 1 and self.given.get(self.denoised[0]):
            raise ValueError(f"given: {self.denoised[0]} alone is predicted; never give it clean")
        if not (self.denoised or self.contrast or self.contrast_slots):
            raise ValueError("nothing is predicted and nothing contrasted; give one of them")
        for setting in ("given", "predicted"):
            for name in getattr(self, setting) or ():
                if name not in self.streams:
                    raise ValueError(f"{setting}: " + unknown("stream", name, self.streams))

    @property
    def denoised(self) -> tuple[str, ...]:
        """Return the streams with a denoising term."""
        return self.streams if self.predicted is None else self.predicted

    def build(self, model: Model) -> Task:
        """Return the task."""
        return Joint(model, self)


def truncated(texts: list[str], draws: Draws) -> list[str]:
    """Return the first 30 to 70 % of each sentence's words, at least one."""
    shares = (0.3 + 0.4 * draws.uniform(len(texts))).tolist()
    words = [text.split() for text in texts]
    return [
        " ".join(w[: max(1, round(len(w) * share))]) for w, share in zip(words, shares, strict=True)
    ]


class Joint(Task):
    """L_cross of every stream plus the contrastive term on V."""

    def __init__(self, model: Model, config: JointConfig) -> None:
        super().__init__(model)
        if config.timesteps not in _TIMESTEPS:
            raise ConfigError(unknown("coupling of timesteps", config.timesteps, _TIMESTEPS))
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.1)))

    @property
    def wanted(self) -> Wanted:
        """Return latents of the streams, captions, and media of other prompts."""
        c = self.config
        latents = tuple(name for name in c.streams if not modality(name).is_caption)
        return Wanted(prompt_media(c.prompts), latents, c.captions, c.complete)

    @property
    def parts(self) -> list[str]:
        """Return diffusers and environments of the streams, prompt encoders, codecs of captions."""
        c, config = self.config, self.model.config
        written = [name for name in c.streams if modality(name).is_caption]
        return [
            *config.parts(("diffusers",), c.denoised),
            *config.parts(("environments",), c.streams),
            *(config.parts(("encoders",), list(c.prompts.encoded)) if c.denoised else []),
            *(config.parts(("codecs",), written) if written else []),
        ]

    @property
    def default_train(self) -> tuple[str, ...]:
        """Return environment encoders and environment attention of all streams."""
        config = self.model.config
        encoders = config.parts(("environments",), self.config.streams)
        diffusers = config.parts(("diffusers",), self.config.denoised)
        return (
            *(f"{part}.*" for part in encoders),
            *(f"{part}.*environment_attention*" for part in diffusers),
            *(("log_scale",) if self.config.contrast or self.config.contrast_slots else ()),
        )

    def steps(self, size: int, draws: Draws) -> dict[str, Tensor]:
        """Return t (B,) of every stream, 0 where a stream is clean."""
        c = self.config
        drawn = partial(draw_steps, draws, size, self.model.schedule.T, c.noisier)
        one = drawn()
        own = {name: drawn() for name in c.streams}
        apart = draws.uniform(size) < _TIMESTEPS[c.timesteps]
        t = {name: torch.where(apart, own[name], one) for name in c.streams}
        alike = {n: float(c.denoised != (n,)) for n in c.streams}
        shares = torch.tensor([(c.given or alike).get(n, 0.0) for n in c.streams])
        who = torch.bucketize(draws.uniform(size), (shares / shares.sum()).cumsum(0)[:-1])
        given = draws.uniform(size) < c.clean
        return {
            name: t[name].masked_fill(given & (who == i), 0) for i, name in enumerate(c.streams)
        }

    @property
    def streams(self) -> tuple[str, ...]:
        """Return what is denoised."""
        return self.config.denoised

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return one denoising term for each stream that is noisy, and the contrastive term.

        A stream that is clean in every sample has no term, which would be 0 and mean nothing: of
        several processes, what is logged is the mean over those that have one.
        """
        c, model = self.config, self.model
        texts = batch.texts
        z0 = {name: clean_latents(model, name, batch, texts) for name in c.streams}
        device = next(iter(z0.values())).device
        steps = self.steps(len(batch), draws)
        t = {name: own.to(device) for name, own in steps.items()}
        noise = {name: draws.normal(*z.shape).to(z) for name, z in z0.items()}
        z_t = {n: model.schedule.add_noise(z0[n], noise[n], t[n]) for n in c.streams}

        codi = model.codi(c.streams)
        environments = codi.environment_of(z_t, t)
        terms = self._contrasts(codi, z_t, environments)
        if not c.denoised:
            return terms
        prompts = truncated(texts, draws) if c.truncate else texts
        context = draw_contexts(model, batch, prompts, c.prompts, draws, c.captions, c.complete)
        for name in c.denoised:
            rows = steps[name].nonzero()[:, 0].to(device)  # a clean stream has nothing to predict
            if len(rows):
                beside = codi.beside(name, environments)
                output = codi.diffusers[name](
                    z_t[name][rows],
                    t[name][rows],
                    context[rows],
                    None if beside is None else beside[rows],
                )
                clean, added = z0[name][rows], noise[name][rows]
                error = denoising_loss(model, name, output, clean, added, t[name][rows], c.weight)
                terms[name] = error.mean()
        return terms

    def _contrasts(self, codi: CoDi, z_t: Latents, environments: Latents) -> dict[str, Tensor]:
        """Return the contrastive terms: whole clips of all pairs, instants of those with time."""
        c, terms = self.config, {}
        encoders: dict[str, Any] = dict(codi.environments.items())
        if c.contrast:
            whole = {name: encoders[name].project(e) for name, e in environments.items()}
            terms["contrast"] = c.contrast * self._contrast(whole)
        if c.contrast_slots:
            slots = {
                name: encoders[name].project_slots(e).flatten(0, 1)
                for name, e in environments.items()
                if encoders[name].tells_time(z_t[name])
            }
            if len(slots) < 2:
                raise ConfigError(
                    f"contrast_slots needs two streams with time, and of {', '.join(c.streams)} "
                    f"{', '.join(slots) or 'none'} has it; set it to 0"
                )
            terms["contrast_slots"] = c.contrast_slots * self._contrast(slots)
        return terms

    def _contrast(self, projected: Mapping[str, Tensor]) -> Tensor:
        """Return the mean contrastive loss over pairs of streams; a row matches its own row."""
        rows = next(iter(projected.values()))
        same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        scale = self.log_scale.clamp(max=math.log(100.0))
        losses = [
            contrastive_loss(projected[a], projected[b], same, scale)
            for a, b in itertools.combinations(projected, 2)
        ]
        return torch.stack(losses).mean()


_TIMESTEPS = {"shared": 0.0, "independent": 1.0, "mixed": 0.5}
"""Share of samples whose streams have their own t."""
