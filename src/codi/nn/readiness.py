"""How networks that run at every step are made ready for inference: the one place that decides.

What measures a network and what serves requests ask here, so that one measures what the other does.
It knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from codi.nn.compiling import compile_network
from codi.nn.graphs import replay
from codi.nn.packing import pack


@dataclass(frozen=True)
class Readiness:
    """What is done to networks before many evaluations of them.

    Attributes:
        device: where they are.
        compiled: whether the large ones are translated (`codi.nn.compiling`).
        lasting: whether they stay for as long as getting ready takes to pay: what a request loads
            and drops does not.
    """

    device: torch.device
    compiled: bool = False
    lasting: bool = True

    @property
    def records(self) -> bool:
        """Whether evaluations are recorded (`codi.nn.graphs`); elsewhere weights are packed."""
        return self.device.type == "cuda" and self.lasting and not self.compiled

    @property
    def takes_prepared(self) -> bool:
        """Whether networks take prompts that they prepared; else they take tensors alone.

        A recording has a place for every tensor, and none for what prepared prompts hold. A GPU's
        compiled networks become recordings too.
        """
        return not (self.records or (self.compiled and self.device.type == "cuda"))

    def make_ready(self, network: nn.Module, large: bool) -> None:
        """Make a network ready in place, after which it has no gradients.

        Args:
            network: on `device`, in the type of numbers that it is computed in.
            large: whether a translation pays.

        Raises:
            ConfigError: it is to be compiled, and there is no compiler.
        """
        if large and self.compiled:
            compile_network(network, self.device)
        elif self.records:
            replay(network)
        elif self.lasting:
            pack(network)
