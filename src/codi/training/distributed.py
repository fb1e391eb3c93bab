"""Several processes, one training: each takes its part of every step, and gradients are averaged.

They are started by `torchrun`, or by whatever else sets RANK, WORLD_SIZE and the like. A step of n
processes is the step of one that accumulates n times, up to the order of sums. Gradients are
averaged after the backward pass, and not by `DistributedDataParallel`: the objectives of a stage
share parameters, and its hooks would run for each of them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from codi.config import ConfigError


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them.

    Attributes:
        rank: number of this one, from 0; count: of all.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes files and speaks to people."""
        return self.rank == 0

    def share(self, size: int) -> int:
        """Return how many of `size` samples one process takes, rounded up."""
        return -(-size // self.count)

    def part(self, index: int) -> int:
        """Return the number that this process's batch `index` of a step has among all."""
        return index * self.count + self.rank

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.count > 1:
            distributed.barrier()

    @torch.no_grad()
    def average_gradients(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Replace every gradient by the mean over the processes; one that is not there is zero.

        A gradient that no process has stays away.
        """
        if self.count == 1:
            return
        own = list(parameters.values())
        there = torch.tensor([p.grad is not None for p in own], dtype=torch.uint8)
        distributed.all_reduce(there, distributed.ReduceOp.MAX)
        moved = [p for p, some in zip(own, there.tolist(), strict=True) if some]
        if not moved:
            return
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in moved]
        )
        distributed.all_reduce(flat)
        flat /= self.count
        for p, mean in zip(moved, flat.split([p.numel() for p in moved]), strict=True):
            p.grad = mean.view_as(p).clone()

    def average(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean of every number over the processes that have it; all have one or more."""
        if self.count == 1:
            return dict(values)
        lists: list[list[str]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(lists, list(values))
        names = list(dict.fromkeys(itertools.chain.from_iterable(lists)))  # alike in all of them
        none = torch.zeros_like(next(iter(values.values())), dtype=torch.float32)
        sums = torch.stack([values.get(name, none).detach().float() for name in names])
        distributed.all_reduce(sums)
        counts = [sum(name in own for own in lists) for name in names]
        means = (total / count for total, count in zip(sums.unbind(), counts, strict=True))
        return dict(zip(names, means, strict=True))

    def any(self, here: bool) -> bool:
        """Say whether something is so in any process."""
        if self.count == 1:
            return here
        flag = torch.tensor(int(here))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def check_equal(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Refuse parameters that have grown apart.

        Raises:
            ConfigError: they have, as on machines that round differently.
        """
        if self.count == 1:
            return
        sums = torch.stack([p.detach().double().sum().cpu() for p in parameters.values()])
        least, most = sums.clone(), sums.clone()
        distributed.all_reduce(least, distributed.ReduceOp.MIN)
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        apart = (least != most) & ~(least.isnan() | most.isnan())
        if apart.any():
            name = list(parameters)[int(apart.nonzero()[0])]
            raise ConfigError(
                f"the {self.count} processes no longer have the same {name}: they must read the "
                "same folder, and run the same versions on machines of one kind"
            )


ALONE = Processes()
"""One process, as without `torchrun`."""


def speaks() -> bool:
    """Say whether this process speaks to people: of several started together, the first does."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Join the processes that were started with this one; yield them and this one's own device.

    Args:
        device: "cuda" becomes the GPU of this process's number on its machine.

    Raises:
        ConfigError: there are more processes on this machine than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, device
        return
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU of its own: there are "
                f"{torch.cuda.device_count()}; start no more processes than that"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    # Numbers and flags of the CPU go their own way, so that no step waits for the GPU to say them.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device != "cpu" else "gloo")
    try:
        yield Processes(distributed.get_rank(), count), device
    finally:
        distributed.destroy_process_group()
