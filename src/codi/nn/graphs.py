"""CUDA graphs: a network's evaluations recorded once for each form of inputs, then replayed.

A GPU does most layers of a small network faster than Python can ask for them. A recorded evaluation
is asked for at once, forwards and backwards. It knows tensors and no network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

FORMS = 12
"""Most forms of inputs that are recorded; each keeps the memory of a whole evaluation."""


def replay(network: nn.Module) -> None:
    """Let a network replay evaluations from the second of a form on, in place.

    A form is the shapes and types of its inputs, whether gradients are wanted, and the precision.
    Its weights keep their names and may change, but not move. What cannot be recorded is evaluated
    as before, with a warning. Only tensors and None are inputs of recorded evaluations; any others
    are evaluated as before.
    """
    # Recordings are made on a stream of their own, which is all that this warning says.
    warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
    network.forward = _Replay(network)


class _Replay:
    """Stands in for `forward`: evaluates once, then records, then replays."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.evaluate: Callable[..., Tensor] = network.forward
        self.recorded: dict[Any, Callable[..., Tensor]] = {}
        self.seen: set[Any] = set()

    def __call__(self, *inputs: Any, **others: Any) -> Tensor:
        """Return what the network makes of the inputs."""
        given = [x for x in inputs if x is not None]
        if others or not all(isinstance(x, Tensor) and x.is_cuda for x in given):
            return self.evaluate(*inputs, **others)
        form = self._form(inputs)
        if form not in self.recorded and form in self.seen and len(self.recorded) < FORMS:
            self.recorded[form] = self._record(inputs)
        self.seen.add(form)
        if form not in self.recorded:
            return self.evaluate(*inputs)
        # The next replay writes over what this one returns, and samplers look back.
        return self.recorded[form](*given).clone()

    def _form(self, inputs: tuple[Tensor | None, ...]) -> Any:
        tensors = [x if x is None else (x.shape, x.dtype, x.requires_grad) for x in inputs]
        precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        return (*tensors, torch.is_grad_enabled(), precision)

    def _record(self, inputs: tuple[Tensor | None, ...]) -> Callable[..., Tensor]:
        call = _Call(self.network, self.evaluate, [x is not None for x in inputs])
        samples = tuple(
            x.detach().clone().requires_grad_(x.requires_grad) for x in inputs if x is not None
        )
        enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        try:
            # Weights that were cast outside of the recording would not be cast anew in a replay.
            with torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False):
                torch.cuda.make_graphed_callables(call, samples, allow_unused_input=True)
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            warnings.warn(f"an evaluation cannot be recorded, and is not: {first}", stacklevel=2)
        return call


class _Call(nn.Module):
    """An evaluation as a module whose inputs are all tensors, which is what torch records."""

    def __init__(
        self, network: nn.Module, evaluate: Callable[..., Tensor], given: list[bool]
    ) -> None:
        super().__init__()
        self.network = network  # whose parameters get gradients
        self.evaluate = evaluate
        self.given = given

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the network's output; inputs that are not given are None."""
        rest: Iterator[Tensor] = iter(tensors)
        return self.evaluate(*(next(rest) if given else None for given in self.given))
