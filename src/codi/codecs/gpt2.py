"""GPT-2 (Radford et al., 2019), whose layers may remember more than the tokens they have read.

It knows no tokenizer and no latent. What a layer has read is its memory: keys and values of past
tokens, or of anything else that later tokens shall attend to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from codi.nn.attention import attend, causal_bias

Memory = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (B, heads, P, d)."""

EPS = 1e-5
"""Of GPT-2's layer norms."""


class GPT2Layer(nn.Module):
    """Causal self-attention and feed-forward layer on (B, L, D), with norms before."""

    def __init__(self, width: int, heads: int, eps: float = EPS) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in = nn.LayerNorm(width, eps=eps)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width, eps=eps)
        self.to_hidden = nn.Linear(width, 4 * width)
        self.from_hidden = nn.Linear(4 * width, width)

    def split(self, x: Tensor) -> Tensor:
        """Split (B, L, D) into (B, heads, L, d)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, memory: Memory, bias: Tensor | None) -> tuple[Tensor, Memory]:
        """Return (B, L, D) and what the layer remembers now."""
        q, k, v = (self.split(part) for part in self.to_qkv(self.norm_in(x)).chunk(3, dim=2))
        now = (torch.cat([memory[0], k], dim=2), torch.cat([memory[1], v], dim=2))
        attended = attend(q, *now, bias)
        x = x + self.to_out(attended.transpose(1, 2).flatten(2))
        return x + self.from_hidden(gelu(self.to_hidden(self.norm_out(x)), approximate="tanh")), now


class GPT2(nn.Module):
    """The language model; its output layer is its token embedding."""

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        width: int,
        heads: int,
        layers: int,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        self.layers = nn.ModuleList(GPT2Layer(width, heads, eps) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(
        self, ids: Tensor, offset: Tensor, memories: Sequence[Memory]
    ) -> tuple[Tensor, list[Memory]]:
        """Return the last hidden states (B, L, D) and what every layer remembers now.

        Positions count from the length of the memory.

        Args:
            ids: the tokens (B, L) that follow what is remembered.
            offset: what is added to all token embeddings, (B, 1, D).
            memories: one for each layer; all tokens attend to all of it.
        """
        past, length = memories[0][0].shape[2], ids.shape[1]
        x = self.tokens(ids) + self.positions.weight[past : past + length] + offset
        bias = causal_bias(length, past, x.device).to(x.dtype) if length > 1 else None
        now = []
        for layer, memory in zip(self.layers, memories, strict=True):
            x, remembered = layer(x, memory, bias)
            now.append(remembered)
        return self.norm(x), now

    def scores(self, hidden: Tensor) -> Tensor:
        """Return the scores (..., V) of the next token."""
        return hidden @ self.tokens.weight.T
