"""All streams of a request as one denoiser on the product space, guided.

It knows a model's diffusers and environment encoders, and no media and no prompt encoders.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from codi.build import Model
from codi.diffusion import PREDICTIONS, GuidanceRule, ProductSpace
from codi.model import CoDi
from codi.types import Latents
from codi.unets.prepared import Context, PreparedContext
from codi.unets.reuse import DeepFeatures


@dataclass(frozen=True)
class JointDenoiser:
    """z (B, N), t -> z_0 (B, N): all streams of a request as one denoiser on the product space.

    Guided and unguided predictions are one batch of twice the size; the environment is the same for
    both, because guidance drops the prompt and not the other streams. What a diffuser computes of
    the prompts and steps alone, it computes at its first evaluation.

    Attributes:
        context, against: prompts (B, L, D), and what guidance steers away from.
        kept: clean latents of streams that are given.
        guidance: a rule for each stream of `space`; where it is not active, nothing is computed
            for it.
        dtype: what the networks compute in.
        steps: those at which it will be asked.
        deep: for each stream whose diffuser can reuse them, the features that it keeps.
        heard: environments of the kept streams, which are the same at every step.
        prepares: whether diffusers that can `prepare` prompts do so; recorded ones take tensors.
    """

    model: Model
    space: ProductSpace
    context: Tensor
    against: Tensor
    kept: Latents
    guidance: dict[str, GuidanceRule]
    dtype: torch.dtype
    steps: tuple[int, ...] = ()
    deep: dict[str, DeepFeatures] = field(default_factory=dict)
    heard: Latents = field(default_factory=dict)
    prepares: bool = True

    @cached_property
    def codi(self) -> CoDi:
        """Return the joint model of all streams."""
        return self.model.codi([*self.space.shapes, *self.kept])

    @cached_property
    def prompts(self) -> dict[str, Context]:
        """Return for each stream what its diffuser reads: all `context`, then all `against`.

        Where no stream is guided, `against` is left out. Streams of one diffuser share it.
        """
        guided = any(rule.scale != 1 for rule in self.guidance.values())
        prompts = torch.cat([self.context, self.against]) if guided else self.context
        made: dict[nn.Module, Context] = {}
        found = {}
        for name in self.space.shapes:
            diffuser = self.codi.diffusers[name]
            prepare = getattr(diffuser, "prepare", None) if self.prepares else None
            if diffuser not in made:
                made[diffuser] = prompts if prepare is None else prepare(prompts, self.steps)
            found[name] = made[diffuser]
        return found

    def __call__(self, z: Tensor, t: int) -> Tensor:
        streams = {name: x.to(self.dtype) for name, x in self.space.unpack(z).items()}
        batch = z.shape[0]
        codi = self.codi
        now = torch.full((batch,), t, device=z.device)
        steps = dict.fromkeys(streams, now) | {name: torch.zeros_like(now) for name in self.kept}
        environments = codi.environment_of(streams | self.kept, steps, self.heard)
        self.heard.update({name: environments[name] for name in self.kept})
        schedule = self.model.schedule
        clean = {}
        for name, z_t in streams.items():
            prompts = self.prompts[name]
            if isinstance(prompts, PreparedContext):
                prompts = prompts.at(t)
            beside = codi.beside(name, environments)
            alpha, sigma = schedule.alpha(now, z_t.ndim), schedule.sigma(now, z_t.ndim)
            rule = self.guidance[name]
            kept = {"deep": self.deep[name]} if name in self.deep else {}
            if rule.active(t):
                output = codi.diffusers[name](
                    torch.cat([z_t, z_t]),
                    torch.cat([now, now]),
                    prompts,
                    None if beside is None else torch.cat([beside, beside]),
                    **kept,
                )
                guided, unguided = output.float().chunk(2)
                output = rule.apply(guided, unguided, t)
            else:
                prompt = _first(prompts, batch)
                output = codi.diffusers[name](z_t, now, prompt, beside, **kept).float()
            recover = PREDICTIONS[self.model.config.modality(name).prediction].recover
            clean[name] = recover(output, z_t.float(), alpha, sigma)[0]
        return self.space.pack(clean)


def _first(prompts: Context, count: int) -> Context:
    """Return the first `count` of some prompts."""
    return prompts.first(count) if isinstance(prompts, PreparedContext) else prompts[:count]
