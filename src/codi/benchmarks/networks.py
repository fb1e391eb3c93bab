"""Networks of any size with random weights, and inputs for them: what speed needs, and no more.

Weights are laid out once, on the device and in the precision asked for, and filled from one short
block of random numbers: a billion parameters take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from codi.build import Model, ModelConfig
from codi.types import Latents

_BLOCK = 2**20 - 3  # odd, so that rows of a matrix do not repeat each other


def model_of_shapes(config: ModelConfig, parts: Iterable[str] | None = None) -> Model:
    """Return a model whose parts (all of them by default) have shapes but no memory."""
    with torch.device("meta"):
        return Model(config, None if parts is None else list(parts))


def random_model(
    config: ModelConfig,
    parts: Iterable[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    skip: Sequence[str] = (),
) -> Model:
    """Return a model with random weights that keep numbers finite; its memory is taken only once.

    Parameters with a word of `skip` in their name are not filled: what is not run takes no memory.
    """
    model = model_of_shapes(config, parts).to(dtype).to_empty(device=device).eval()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not any(word in name for word in skip):
                fill(tensor)
    return model.requires_grad_(False)


def fill(tensor: Tensor) -> None:
    """Fill a matrix or a kernel with numbers of variance 1 / fan-in, a vector with ones."""
    if tensor.ndim < 2 or not tensor.is_floating_point():
        tensor.fill_(1)
        return
    flat = tensor.view(-1)
    generator = torch.Generator().manual_seed(tensor.numel())
    block = torch.rand(min(_BLOCK, flat.numel()), generator=generator) - 0.5
    block = (block * math.sqrt(12 / tensor[0].numel())).to(flat)
    for first in range(0, flat.numel(), len(block)):
        some = flat[first : first + len(block)]
        some.copy_(block[: len(some)])


def latents(
    config: ModelConfig,
    streams: Sequence[str],
    batch: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Latents:
    """Return random latents (B, ...) of some streams."""
    made = {name: torch.empty(batch, *config.modality(name).latent) for name in streams}
    for z in made.values():
        fill(z)
    return {name: z.to(device, dtype) for name, z in made.items()}


STEP = 500
"""The step of one evaluation."""


def step(batch: int = 1, device: torch.device | str = "cpu", t: int = STEP) -> Tensor:
    """Return the step t for every sample, (B,)."""
    return torch.full((batch,), t, dtype=torch.long, device=device)


def context(
    config: ModelConfig,
    batch: int = 1,
    tokens: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return a random prompt (B, L, D), of the length that the model's prompts have by default."""
    parts = [config.part("encoders", m.encoder) for m in config.modalities.values() if m.encoder]
    length = tokens or max(getattr(part, "context_tokens", 1) for part in parts)
    made = torch.empty(batch, length, parts[0].context_width)
    fill(made)
    return made.to(device, dtype)


def stored_bytes(parts: Iterable[nn.Module]) -> int:
    """Return the bytes of all parameters of some modules, each counted once."""
    found = {id(p): p for part in parts for p in part.parameters()}
    return sum(p.numel() * p.element_size() for p in found.values())
