"""Mix contexts of several prompts: one interpolation, whatever encoders and lengths they have.

It knows tensors only, neither encoders nor diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from codi.config import ConfigError


def of_one_length(contexts: Sequence[Tensor]) -> list[Tensor]:
    """Return contexts (B, L, D) of one L: a single token stands L times where others have L.

    To attention, a token that is repeated is the token itself: the weights over equal keys add up
    to 1, and the values are equal. So the repetition of a prompt says exactly what the prompt says,
    and in a mixture its token is interpolated with every token of the other. Between sequences of
    different lengths there is no such correspondence, and cutting or padding one would make another
    prompt of it.

    Raises:
        ConfigError: two lengths other than 1.
    """
    lengths = sorted({context.shape[1] for context in contexts} - {1})
    if len(lengths) > 1:
        raise ConfigError(
            f"prompts of {lengths[0]} and {lengths[1]} tokens cannot be mixed; use encoders whose "
            "sequences have one length, or prompts of one token"
        )
    length = lengths[0] if lengths else 1
    return [context.expand(-1, length, -1) for context in contexts]


def interpolated(contexts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the interpolation (B, L, D) of contexts (B, L, D), token by token (CoDi, 3.2).

    The weights add up to 1; the mixture is not re-normalised. A context of one token may be mixed
    with any other: see `of_one_length`.

    Raises:
        ConfigError: two lengths other than 1.
    """
    first, *others = (
        context * weight for context, weight in zip(of_one_length(contexts), weights, strict=True)
    )
    for context in others:
        first = first + context
    return first
