"""The product space of named latents, and noise that does not depend on who else is there.

Joint generation is diffusion of one vector: all latents side by side (CoDi, section 3.4,
diffuses all modalities at the same t). `ProductSpace` packs and unpacks it; `Noise`
draws for it. This module does not know what the names stand for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


# Equality of dicts forgets their order, and with it the layout.
@dataclass(frozen=True, eq=False)
class ProductSpace:
    """Lay named latents of given shapes side by side in one vector of N numbers.

    The order is the order of insertion of `shapes`, whatever the order of a dict to be packed.

    Attributes:
        shapes: name -> shape of one latent without the batch axis.

    >>> space = ProductSpace({"a": (2, 3), "b": (4,)})
    >>> space.size, space.slices
    (10, {'a': slice(0, 6, None), 'b': slice(6, 10, None)})
    >>> z = space.pack({"b": torch.ones(5, 4), "a": torch.zeros(5, 2, 3)})
    >>> z.shape, space.unpack(z)["b"].shape
    (torch.Size([5, 10]), torch.Size([5, 4]))
    """

    shapes: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        """Check the shapes and keep a copy of them.

        Raises:
            ValueError: without any latent, or for an axis that is not positive.
        """
        if not self.shapes:
            raise ValueError("a product space needs at least one latent; none was given")
        for name, shape in self.shapes.items():
            if any(axis < 1 for axis in shape):
                raise ValueError(f"latent {name!r} has shape {shape}; every axis must be positive")
        shapes = {name: tuple(shape) for name, shape in self.shapes.items()}
        object.__setattr__(self, "shapes", shapes)

    @property
    def size(self) -> int:
        """Return N, the numbers of one packed sample."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def slices(self) -> dict[str, slice]:
        """Return where each latent lies in the packed vector."""
        slices, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            slices[name] = slice(start, stop)
            start = stop
        return slices

    def pack(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Lay latents, name -> (B, *shape), side by side; return (B, N).

        Raises:
            ValueError: for a missing or unknown name, a wrong shape, or unequal batch sizes.
        """
        if set(latents) != set(self.shapes):
            raise ValueError(f"latents {sorted(latents)} given; needed are {sorted(self.shapes)}")
        first = latents[next(iter(self.shapes))]
        batch = first.shape[0] if first.ndim else 0
        for name, shape in self.shapes.items():
            if latents[name].shape != (batch, *shape):
                raise ValueError(
                    f"latent {name!r} has shape {tuple(latents[name].shape)}; "
                    f"needed is {(batch, *shape)}"
                )
        return torch.cat([latents[name].reshape(batch, -1) for name in self.shapes], dim=1)

    def unpack(self, z: Tensor) -> dict[str, Tensor]:
        """Cut z (B, N) into its latents, name -> (B, *shape); views, not copies.

        Raises:
            ValueError: when z is not (B, N).
        """
        if z.ndim != 2 or z.shape[1] != self.size:
            raise ValueError(f"packed latents have shape {tuple(z.shape)}; needed (B, {self.size})")
        return {
            name: z[:, where].view(z.shape[0], *self.shapes[name])
            for name, where in self.slices.items()
        }


@dataclass(frozen=True)
class Noise:
    """Draw standard normal noise keyed by (seed, name, index of the draw).

    Every key has its own counter-based generator (Salmon et al. 2011, Philox), so sample i of a
    batch equals the same seed alone, and asking for one more name changes nothing.

    Attributes:
        seeds: one seed per sample of the batch.

    >>> pair, alone = Noise([7, 8]), Noise([8])
    >>> torch.equal(pair.draw("a", (2, 3), 0)[1], alone.draw("a", (2, 3), 0)[0])
    True
    """

    seeds: Sequence[int]

    def __post_init__(self) -> None:
        """Refuse an empty batch.

        Raises:
            ValueError: without any seed.
        """
        if len(self.seeds) == 0:
            raise ValueError("noise needs one seed per sample; none was given")
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))

    def draw(self, name: str, shape: tuple[int, ...], index: int) -> Tensor:
        """Return draw number `index` for the latent `name`: (B, *shape) float32 on the CPU."""
        return torch.stack([_standard_normal(seed, name, shape, index) for seed in self.seeds])


def _standard_normal(seed: int, name: str, shape: tuple[int, ...], index: int) -> Tensor:
    """Draw one sample of `shape` from the generator of one key."""
    # Not torch.Generator: on the CPU it keeps 32 bits of its seed, and keys would collide.
    digest = hashlib.sha256(f"{seed}\0{name}\0{index}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


@dataclass(frozen=True)
class NoiseSource:
    """Draw packed noise for a product space: `source(index)` returns (B, N) float32 on the CPU.

    By convention of the samplers, draw 0 is the start z_T and draw i + 1 belongs to move i.

    Attributes:
        noise: the keyed generator of the batch.
        space: what is drawn for.
    """

    noise: Noise
    space: ProductSpace

    def __call__(self, index: int) -> Tensor:
        """Return draw number `index` (B, N)."""
        return self.space.pack(
            {name: self.noise.draw(name, shape, index) for name, shape in self.space.shapes.items()}
        )
