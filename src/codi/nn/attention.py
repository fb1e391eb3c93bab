"""Attention: over the positions of one stream, over a prompt's context, over an environment.

Sequences are (B, L, D). Nothing here knows a modality; time is a vector of seconds or None.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

from codi.nn.precision import only_vectors_of_bfloat16

SHORT = 64
"""Fewest keys for which torch's fused attention is worth it on a CPU (docs/log.md, 2026-11-24)."""


SLICE = 2**20
"""Bytes of scores of a slice of queries, for each thread: they stay in the cache of a core."""


NARROW = 32
"""Fewest columns that a product of bfloat16 computes fast: 24 take longer than 32."""


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return softmax(q k' / sqrt(d) + bias) v, (B, heads, L, d), by the fastest of three ways.

    The fused CPU kernel's backward pass over a few keys is up to 15 times slower than the three
    plain products; over many keys it saves the memory and half of the time. In bfloat16 it needs
    units for tiles: on a CPU without, plain products a slice at a time take half of its time, and
    less for wide heads, but scores are rounded (docs/performance.md). They have no backward pass
    here.
    """
    if q.device.type != "cpu":
        return scaled_dot_product_attention(q, k, v, attn_mask=bias)
    if k.shape[-2] <= SHORT:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        return scores.float().softmax(-1).to(v.dtype) @ v
    alone = bias is None and q.shape[:2] == k.shape[:2] and q.numel() > 0
    # What is compiled would be unrolled, slice by slice.
    eager = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if alone and eager and q.dtype == torch.bfloat16 and only_vectors_of_bfloat16():
        return attend_in_slices(q, k, v, SLICE * torch.get_num_threads())
    return scaled_dot_product_attention(q, k, v, attn_mask=bias)


def attend_in_slices(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v from plain products, of `size` bytes of scores at a time.

    A slice is as many whole heads of one sample as fit, or else as many queries of one head.
    """
    batch, heads, length, _ = q.shape
    row = k.shape[-2] * q.element_size()
    together = min(max(size // (row * length), 1), heads)
    rows = min(max(size // (row * together), 1), length)
    scaled = (k * q.shape[-1] ** -0.5).transpose(-1, -2)
    width = v.shape[-1]
    v = pad(v, (0, max(NARROW - width, 0)))
    # Laid out as the sequence (B, L, heads * d) that the output layer reads.
    attended = q.new_empty(batch, length, heads, width).transpose(1, 2)
    # Memory of their own for the scores: slices that are freed cost page faults again and again.
    scores, weights = (q.new_empty(together, rows, k.shape[-2]) for _ in range(2))
    for sample, head in product(range(batch), range(0, heads, together)):
        # One head alone is a matrix, and not a batch of one, which has a slower product.
        which = head if together == 1 else slice(head, head + together)
        queries, keys, values, results = (x[sample, which] for x in (q, scaled, v, attended))
        kept = 0 if together == 1 else slice(len(queries))
        for first in range(0, length, rows):
            some = queries[..., first : first + rows, :]
            here = kept, slice(some.shape[-2])
            torch.matmul(some, keys, out=scores[here])
            torch.softmax(scores[here], -1, out=weights[here])
            results[..., first : first + rows, :] = (weights[here] @ values)[..., :width]
    return attended


class Projected(NamedTuple):
    """A source as one attention reads it: what does not depend on the queries.

    Attributes:
        keys: (B, heads, L', d), or None for a source of one token.
        values: (B, heads, L', d), or the result itself (B, 1, D) for a source of one token.
    """

    keys: Tensor | None
    values: Tensor

    def first(self, count: int) -> Projected:
        """Return the first `count` samples; nothing is copied."""
        return Projected(None if self.keys is None else self.keys[:count], self.values[:count])


class Attention(nn.Module):
    """Multi-head attention of queries (B, L, D) to a source (B, L', D') (Vaswani et al., 2017).

    With a source of one token the softmax is 1 whatever the query, so the result is
    `to_out(to_v(source))` at every position: computed once, exactly, and broadcast. `bias` gives
    queries, keys and values one, as in Stable Diffusion's autoencoder. A source that many calls
    read, such as the prompt of all steps, may be projected before them (`project`).

    `fused` is the form of the released CoDi's temporal attention: keys and values come from one
    matrix, and the output has no bias.
    """

    def __init__(
        self,
        width: int,
        source_width: int,
        heads: int,
        head_width: int,
        bias: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.fused = fused
        self.to_q = nn.Linear(width, inner, bias=bias)
        if fused:
            self.to_kv = nn.Linear(source_width, 2 * inner, bias=bias)
        else:
            self.to_k = nn.Linear(source_width, inner, bias=bias)
            self.to_v = nn.Linear(source_width, inner, bias=bias)
        self.to_out = nn.Linear(inner, width, bias=not fused)

    def project(self, source: Tensor) -> Projected:
        """Return keys and values of `source` (B, L', D'), or the result if it is one token."""
        if source.shape[1] == 1 and not self.fused:
            return Projected(None, self.to_out(self.to_v(source)))
        keys, values = (
            self.to_kv(source).chunk(2, dim=-1)
            if self.fused
            else (self.to_k(source), self.to_v(source))
        )
        return Projected(self._split(keys), self._split(values))

    def forward(
        self,
        x: Tensor,
        source: Tensor | Projected,
        bias: Tensor | None = None,
        norm: nn.Module | None = None,
    ) -> Tensor:
        """Return (B, L, D), or (B, 1, D) to be broadcast when the source is one token.

        `source` is (B, L', D'), or what `project` made of it. `bias` (heads, L, L') or (1, L, L')
        is added to the scores. `norm` is applied to `x` where the queries are asked for at all.
        """
        k, v = source if isinstance(source, Projected) else self.project(source)
        if k is None:
            return v
        q = self._split(self.to_q(x if norm is None else norm(x)))
        attended = attend(q, k, v, None if bias is None else bias.to(q.dtype))  # (B, heads, L, d)
        return self.to_out(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """Split (B, L, heads * d) into (B, heads, L, d)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class EnvironmentAttention(nn.Module):
    """Attend to the environment (B, K, E) of the streams generated beside this one.

    This is the cross-modal sublayer of CoDi, section 3.4 and Eq. 3. Its output projection starts at
    zero, so a model with untrained environment parts is exactly the model without them. Each head
    has a learned window in physical time, score - rate * (query - slot - offset)^2: a head can look
    at its own instant, a little before it, or everywhere. Queries without time see all slots alike.
    """

    def __init__(self, width: int, environment_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, environment_width, heads, head_width)
        nn.init.zeros_(self.attention.to_out.weight)
        nn.init.zeros_(self.attention.to_out.bias)
        # Windows from about a tenth of a second to the whole clip; rate in 1 / s^2.
        widths_s = torch.logspace(-1, 0.5, heads) if heads > 1 else torch.tensor([0.3])
        self.log_rate = nn.Parameter((0.5 / widths_s**2).log())
        self.offset_s = nn.Parameter(torch.zeros(heads))

    def forward(
        self,
        x: Tensor,
        environment: Tensor,
        query_times_s: Tensor | None = None,
        slot_times_s: Tensor | None = None,
    ) -> Tensor:
        """Return the residual (B, L, D) for `x` (B, L, D); times are (L,) and (K,) in seconds."""
        bias = None
        if query_times_s is not None and slot_times_s is not None and environment.shape[1] > 1:
            bias = self.time_bias(query_times_s, slot_times_s)
        return self.attention(x, environment, bias, self.norm)

    def time_bias(self, query_times_s: Tensor, slot_times_s: Tensor) -> Tensor:
        """Return the score offsets (heads, L, K) of the time windows."""
        distance = query_times_s[:, None] - slot_times_s[None, :] - self.offset_s[:, None, None]
        return -self.log_rate.exp()[:, None, None] * distance.square()


class FeedForward(nn.Module):
    """Gated feed-forward layer (Shazeer, 2020: GEGLU) with a layer norm before it."""

    def __init__(self, width: int, multiple: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_hidden = nn.Linear(width, 2 * multiple * width)
        self.to_out = nn.Linear(multiple * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual (B, L, D) for `x` (B, L, D)."""
        value, gate = self.to_hidden(self.norm(x)).chunk(2, dim=-1)
        return self.to_out(value * gelu(gate))


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward layer for token sequences (B, L, D)."""

    def __init__(self, width: int, heads: int, multiple: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, width, heads, width // heads)
        self.feed_forward = FeedForward(width, multiple)

    def forward(
        self, x: Tensor, bias: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Return (B, L, D). `memory` (B, P, D) is prepended to what is attended to."""
        normed = self.norm(x)
        source = normed if memory is None else torch.cat([memory, normed], dim=1)
        x = x + self.attention(normed, source, bias)
        return x + self.feed_forward(x)


def causal_bias(length: int, memory: int = 0, device: torch.device | None = None) -> Tensor:
    """Return the bias (1, L, memory + L) that lets a token see itself, the past and all memory.

    >>> causal_bias(2, memory=1)
    tensor([[[0., 0., -inf],
             [0., 0., 0.]]])
    """
    future = torch.full((length, length), float("-inf"), device=device).triu(1)
    return torch.cat([torch.zeros(length, memory, device=device), future], dim=1)[None]
