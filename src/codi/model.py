"""CoDi: several diffusers that denoise together, each reading the environment of the others.

It knows names and tensors, nothing else: no media, no prompt encoders, no noise schedule.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from codi.types import Latents


class CoDi(nn.Module):
    """Composable Diffusion (CoDi, section 3.4): one diffuser and one environment encoder a stream.

    Stream A attends to the interpolation of V_B(z_t^B) over all *other* streams B. With one stream
    there is no environment, and that is the only place where "alone" exists.
    """

    def __init__(
        self, diffusers: Mapping[str, nn.Module], environments: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.diffusers = nn.ModuleDict(dict(diffusers))
        self.environments = nn.ModuleDict(dict(environments))

    def forward(
        self,
        z_t: Latents,
        t: dict[str, Tensor],
        context: Tensor | Latents,
        outputs: Collection[str] | None = None,
    ) -> Latents:
        """Return what each diffuser predicts for its stream.

        Args:
            z_t: latents of all streams, (B, ...) each; a stream given by the user is clean.
            t: integer steps (B,) of all streams, 0 for a clean one; streams need not agree.
            context: mixed prompt (B, L, D), one for all streams or one for each.
            outputs: streams to predict; the others are only listened to. All by default.
        """
        wanted = list(z_t) if outputs is None else [name for name in z_t if name in outputs]
        environments = self.environment_of(z_t, t)
        predictions = {}
        for name in wanted:
            prompt = context[name] if isinstance(context, dict) else context
            predictions[name] = self.diffusers[name](
                z_t[name], t[name], prompt, self.beside(name, environments)
            )
        return predictions

    def environment_of(self, z_t: Latents, t: dict[str, Tensor]) -> Latents:
        """Return V_m(z_t^m) (B, K, E) of every stream; nothing for a single stream."""
        if len(z_t) == 1:
            return {}
        return {name: self.environments[name](z_t[name], t[name]) for name in z_t}

    @staticmethod
    def beside(name: str, environments: Latents) -> Tensor | None:
        """Return the interpolation (B, K, E) of the environments of all streams but `name`.

        CoDi, section 3.4: the UNet of A attends to the interpolation of V_B(z_t^B) and V_C(z_t^C).
        """
        others = [e for other, e in environments.items() if other != name]
        return torch.stack(others).mean(0) if others else None
