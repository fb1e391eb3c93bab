"""One latent diffusion model: predict what was added to a latent (CoDi, Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from codi.build import Model
from codi.config import unknown
from codi.data.batches import Batch, Wanted
from codi.diffusion import LOSS_WEIGHTS, PREDICTIONS
from codi.modalities import modality
from codi.training.prompts import PromptConfig, clean_latents, draw_contexts, prompt_media
from codi.training.task import Draws, Task


def denoising_loss(
    model: Model, name: str, output: Tensor, z0: Tensor, noise: Tensor, t: Tensor, weight: str
) -> Tensor:
    """Return the weighted squared error (B,) of one stream's prediction."""
    prediction = model.config.modality(name).prediction
    alpha, sigma = model.schedule.alpha(t, z0.ndim), model.schedule.sigma(t, z0.ndim)
    target = PREDICTIONS[prediction].target(z0, noise, alpha, sigma)
    error = (output.float() - target).square().flatten(1).mean(1)
    return error * LOSS_WEIGHTS[weight](model.schedule.snr(t), prediction)


def draw_steps(draws: Draws, size: int, total: int, noisier: float) -> Tensor:
    """Return steps (size,) in 1..total with a density as t^(noisier - 1), on the CPU.

    1 is uniform, more favours the noisy end, where what to make is decided, and less the clean end,
    where its detail is.
    """
    steps = (draws.uniform(size) ** (1.0 / noisier) * total).long() + 1
    return steps.clamp(max=total)  # a root of almost 1 is rounded to 1


@dataclass(frozen=True)
class DenoiseConfig:
    """Train the diffuser of `modality` (CoDi, section 3.3).

    Attributes:
        captions: modalities whose captions prompt it (and, for text, are what it denoises).
        complete: share of captions that tell everything; the others tell a random part.
        prompts: how prompts are drawn.
        noisier: 1 draws t uniformly, more favours noise and less detail: see `draw_steps`.
        weight: weighting of the loss over t, a name of `codi.diffusion.LOSS_WEIGHTS`.
    """

    modality: str
    captions: tuple[str, ...]
    complete: float = 0.0
    prompts: PromptConfig = field(default_factory=PromptConfig)
    noisier: float = 1.0
    weight: str = "uniform"

    def __post_init__(self) -> None:
        """Check what only a name says.

        Raises:
            ValueError: an unknown weighting, or a `noisier` of 0 or less.
        """
        if self.noisier <= 0:
            raise ValueError(f"noisier is {self.noisier:g}; give 1 (uniform), less or more")
        if self.weight not in LOSS_WEIGHTS:
            raise ValueError(unknown("weight", self.weight, LOSS_WEIGHTS))

    def build(self, model: Model) -> Task:
        """Return the task."""
        return Denoise(model, self)


class Denoise(Task):
    """Eq. 1 for one modality, t in 1..T, uniform by default."""

    def __init__(self, model: Model, config: DenoiseConfig) -> None:
        super().__init__(model)
        self.config = config

    @property
    def encodes_captions(self) -> bool:
        """Say whether its media are captions, written afresh and encoded for every batch."""
        return modality(self.config.modality).is_caption

    @property
    def wanted(self) -> Wanted:
        """Return latents, captions, and media of the prompts that are not captions."""
        c = self.config
        latents = () if self.encodes_captions else (c.modality,)
        return Wanted(prompt_media(c.prompts), latents, c.captions, c.complete)

    @property
    def parts(self) -> list[str]:
        """Return the diffuser, the prompt encoders, and the codec of captions."""
        c, config = self.config, self.model.config
        parts = config.parts(("diffusers",), [c.modality])
        parts += config.parts(("encoders",), list(c.prompts.encoded))
        return parts + (config.parts(("codecs",), [c.modality]) if self.encodes_captions else [])

    @property
    def default_train(self) -> tuple[str, ...]:
        """Return the diffuser; environment parts wait for the joint stages."""
        own = self.model.config.parts(("diffusers",), [self.config.modality])
        return (*(f"{part}.*" for part in own), "!*environment_attention*")

    @property
    def streams(self) -> tuple[str, ...]:
        """Return what is denoised."""
        return (self.config.modality,)

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the denoising error."""
        c = self.config
        size = len(batch)
        z0 = clean_latents(self.model, c.modality, batch, batch.texts)
        t = draw_steps(draws, size, self.model.schedule.T, c.noisier).to(z0.device)
        noise = draws.normal(*z0.shape).to(z0)
        context = draw_contexts(
            self.model, batch, batch.texts, c.prompts, draws, c.captions, c.complete
        )
        z_t = self.model.schedule.add_noise(z0, noise, t)
        output = self.model.part("diffusers", c.modality)(z_t, t, context)
        error = denoising_loss(self.model, c.modality, output, z0, noise, t, c.weight)
        return {"denoising": error.mean()}
