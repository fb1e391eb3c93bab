"""CoDi: several diffusers that denoise together, each reading the environment of the others.

It knows names and tensors, nothing else: no media, no prompt encoders, no noise schedule.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from codi.types import Latents
from codi.unets.prepared import Context

WIRINGS: Final[MappingProxyType[str, Callable[[str, str], bool]]] = MappingProxyType(
    {"others": operator.ne, "own": operator.eq}
)
"""Wiring -> whether the stream of the first name listens to that of the second: the paper's, and
the released CoDi's, where a stream hears only itself and joint generation joins nothing."""


def _mean(heard: Tensor) -> Tensor:
    return heard.mean(0)


def _timed(heard: Tensor) -> Tensor:
    throughout = heard.mean(2, keepdim=True)
    return throughout.mean(0) + (heard - throughout).sum(0)


INTERPOLATIONS: Final[MappingProxyType[str, Callable[[Tensor], Tensor]]] = MappingProxyType(
    {"mean": _mean, "timed": _timed}
)
"""How the environments (N, B, K, E) of N streams become one (B, K, E): their mean, as in the paper;
or the mean of what each says throughout, plus the sum of what each says of single instants: so a
stream with time is heard as well beside three others as beside none (ADR 10)."""


class CoDi(nn.Module):
    """Composable Diffusion (CoDi, section 3.4): one diffuser and one environment encoder a stream.

    Stream A attends to the interpolation of V_B(z_t^B) over all *other* streams B. With one stream
    there is no environment, and that is the only place where "alone" exists. `wiring` is a key of
    `WIRINGS`, `interpolation` one of `INTERPOLATIONS`.
    """

    def __init__(
        self,
        diffusers: Mapping[str, nn.Module],
        environments: Mapping[str, nn.Module],
        wiring: str = "others",
        interpolation: str = "mean",
    ) -> None:
        super().__init__()
        self.listens_to = WIRINGS[wiring]
        self.interpolate = INTERPOLATIONS[interpolation]
        self.diffusers = nn.ModuleDict(dict(diffusers))
        self.environments = nn.ModuleDict(dict(environments))

    def forward(
        self,
        z_t: Latents,
        t: dict[str, Tensor],
        context: Context | Mapping[str, Context],
        outputs: Collection[str] | None = None,
    ) -> Latents:
        """Return what each diffuser predicts for its stream.

        Args:
            z_t: latents of all streams, (B, ...) each; a stream given by the user is clean.
            t: integer steps (B,) of all streams, 0 for a clean one; streams need not agree.
            context: mixed prompt (B, L, D), one for all streams or one for each; or what each
                diffuser prepared of it.
            outputs: streams to predict; the others are only listened to. All by default.
        """
        wanted = list(z_t) if outputs is None else [name for name in z_t if name in outputs]
        environments = self.environment_of(z_t, t)
        predictions = {}
        for name in wanted:
            prompt = context[name] if isinstance(context, Mapping) else context
            predictions[name] = self.diffusers[name](
                z_t[name], t[name], prompt, self.beside(name, environments)
            )
        return predictions

    def environment_of(
        self, z_t: Latents, t: dict[str, Tensor], known: Latents | None = None
    ) -> Latents:
        """Return V_m(z_t^m) (B, K, E) of every stream; nothing for a single stream.

        Those in `known` are taken as they are.
        """
        if len(z_t) == 1:
            return {}
        known = known or {}
        return {
            name: known[name] if name in known else self._environment(name, z_t[name], t[name])
            for name in z_t
        }

    def _environment(self, name: str, z_t: Tensor, t: Tensor) -> Tensor:
        """Return V_m(z_t) (B, K, E); some V_m share their diffuser's embedding of t."""
        encoder = self.environments[name]
        if getattr(encoder, "shares_step", False):
            return encoder(z_t, t, self.diffusers[name].embed_step(t))  # type: ignore[operator]
        return encoder(z_t, t)

    def beside(self, name: str, environments: Latents) -> Tensor | None:
        """Return the interpolation (B, K, E) of the environments that stream `name` listens to.

        CoDi, section 3.4: the UNet of A attends to the interpolation of V_B(z_t^B) and V_C(z_t^C),
        the environments of all streams but A.
        """
        heard = [e for other, e in environments.items() if self.listens_to(name, other)]
        return self.interpolate(torch.stack(heard)) if heard else None
