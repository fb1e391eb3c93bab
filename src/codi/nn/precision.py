"""Weights held in fewer bits than they are computed in, and what a CPU computes fast.

A layer that is told to hold its weights so widens each of them when an operation reads it, and the
wide copy goes as soon as the operation is done: of a whole network, one layer is wide at a time. It
knows no layer: whatever torch computes with the parameter, torch computes with the wide copy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, embedding

from codi.config import ConfigError, unknown

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Types of numbers by the names that users type."""


def named_dtype(what: str, given: str | torch.dtype) -> torch.dtype:
    """Return a type of numbers; `what` asks for it, in the message.

    Raises:
        ConfigError: there is none of that name.
    """
    found = DTYPES.get(given) if isinstance(given, str) else given
    if found is None or found not in DTYPES.values():
        raise ConfigError(unknown(what, str(given), DTYPES))
    return found


class HeldParameter(nn.Parameter):
    """A parameter in the type of its file, which every operation reads in another type.

    Its `dtype` is the one that it is computed in, so that code which asks for it makes activations
    that fit. Rows of a table (`embedding`) are looked up before they are widened.
    """

    compute_dtype: torch.dtype

    @classmethod
    def of(cls, held: Tensor, compute_dtype: torch.dtype) -> HeldParameter:
        """Return a parameter that shares the memory of `held`, mapped or not; it never trains."""
        parameter = cls(held, requires_grad=False)
        parameter.compute_dtype = compute_dtype
        return parameter

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation on wide copies; questions about the parameter are about itself."""
        del types
        kwargs = dict(kwargs or {})
        if func == _DTYPE:  # made anew whenever it is asked for
            return args[0].compute_dtype
        with torch._C.DisableTorchFunctionSubclass():
            name = getattr(func, "__name__", "")
            if func in _OF_ITSELF or name == "__set__":
                return func(*args, **kwargs)
            if name == "__get__":  # a flag, a shape, or a view such as `.T`
                found = func(*args, **kwargs)
                return found.to(args[0].compute_dtype) if isinstance(found, Tensor) else found
            if func is embedding:
                table = kwargs.get("weight", args[1] if len(args) > 1 else None)
                return func(*args, **kwargs).to(table.compute_dtype)  # type: ignore[union-attr]
            return func(*map(_wide, args), **{name: _wide(x) for name, x in kwargs.items()})


_DTYPE = Tensor.dtype.__get__  # type: ignore[attr-defined]
_OF_ITSELF: frozenset[Any] = frozenset(
    (
        *(Tensor.requires_grad_, Tensor.detach, Tensor.data.__get__),  # type: ignore[attr-defined]
        *(Tensor.data_ptr, Tensor.element_size, Tensor.untyped_storage, Tensor.is_floating_point),
        *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_contiguous),
    )
)
"""What is not computed: the memory that is held, and flags."""


def _wide(x: Any) -> Any:
    if isinstance(x, HeldParameter):
        return x.to(x.compute_dtype)
    if isinstance(x, list | tuple) and any(isinstance(item, HeldParameter) for item in x):
        return type(x)(map(_wide, x))
    return x


def held(tensor: Tensor, dtype: torch.dtype, compute_dtype: torch.dtype) -> Tensor:
    """Return weights as a layer should have them that holds `dtype` and computes `compute_dtype`.

    What a file stores in as few bits is not converted, so that it stays mapped. Vectors are small,
    and made wide at once.
    """
    if dtype == compute_dtype or tensor.dtype.itemsize > dtype.itemsize:
        tensor = tensor.to(dtype)
    if tensor.ndim < 2:
        return tensor.to(compute_dtype)
    return tensor if tensor.dtype == compute_dtype else HeldParameter.of(tensor, compute_dtype)


SLOWER = 1.5
"""How many times slower than float32 a type may be and still count as one that a CPU computes."""


@cache
def is_fast_on_cpu(dtype: torch.dtype) -> bool:
    """Say whether this CPU computes in `dtype` about as fast as in float32, by trying both.

    CPUs without units for bfloat16 emulate it: products become twice as slow, and convolutions
    more than ten times.
    """
    return _try_s(dtype) < SLOWER * _try_s(torch.float32)


def _try_s(dtype: torch.dtype, repeat: int = 4) -> float:
    """Return the seconds of a small convolution and a small product, at their best."""
    generator = torch.Generator().manual_seed(0)
    picture, kernel, matrix = (
        torch.randn(shape, generator=generator).to(dtype)
        for shape in ((1, 64, 32, 32), (64, 64, 3, 3), (256, 256))
    )
    best_s = math.inf
    with torch.no_grad():
        for _ in range(repeat + 1):  # the first one sets up
            began_s = time.perf_counter()
            conv2d(picture, kernel)
            matrix @ matrix
            best_s = min(best_s, time.perf_counter() - began_s)
    return best_s


def cpu_compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return what a CPU should compute weights of `dtype` in: bfloat16 for 16 bits if it is fast.

    Matrix products in float16 are hundreds of times slower on a CPU than in float32.
    """
    if dtype.itemsize > 2:
        return dtype
    return torch.bfloat16 if is_fast_on_cpu(torch.bfloat16) else torch.float32


def computes_bfloat16(device: str) -> bool:
    """Say whether a device has units for bfloat16, which training should compute in.

    What it says of a machine never changes, unlike what a measurement says: a run that goes on
    must compute as it began.
    """
    if torch.device(device).type != "cpu":
        return True
    return _cpu_has("avx512_bf16") or _cpu_has("amx_tile")


@cache
def only_vectors_of_bfloat16() -> bool:
    """Say whether this CPU has units for vectors of bfloat16, but none for tiles of it (AMX)."""
    return _cpu_has("avx512_bf16") and not _cpu_has("amx_tile")


def _cpu_has(units: str) -> bool:
    return bool(getattr(torch.cpu, f"_is_{units}_supported", lambda: False)())
