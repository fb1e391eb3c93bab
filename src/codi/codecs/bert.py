"""BERT (Devlin et al., 2019): token ids -> one vector a token, and one for the sentence.

It knows no tokenizer and no latent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu

from codi.nn.attention import Attention

EPS = 1e-12
"""Of BERT's layer norms."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": relu, "swish": silu}
"""BERT's names of what its feed-forward layers are activated by; "gelu" is the exact one."""


class BertLayer(nn.Module):
    """Self-attention and feed-forward layer on (B, L, D), each normalised after its residual."""

    def __init__(
        self, width: int, heads: int, hidden: int, activation: str = "gelu", eps: float = EPS
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.attention = Attention(width, width, heads, width // heads, bias=True)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.to_hidden = nn.Linear(width, hidden)
        self.to_out = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return (B, L, D); `bias` is added to the scores of attention."""
        x = self.attention_norm(x + self.attention(x, x, bias))
        return self.norm(x + self.to_out(self.activation(self.to_hidden(x))))


class Bert(nn.Module):
    """The encoder with its pooler, of sentences that are one segment, the first of `segments`."""

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        width: int,
        heads: int,
        layers: int,
        hidden: int,
        activation: str = "gelu",
        eps: float = EPS,
        segments: int = 2,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.segments = nn.Embedding(segments, width)
        for embedding in (self.tokens, self.positions, self.segments):
            nn.init.normal_(embedding.weight, std=0.02)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.layers = nn.ModuleList(
            BertLayer(width, heads, hidden, activation, eps) for _ in range(layers)
        )
        self.pooler = nn.Linear(width, width)

    def forward(self, ids: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sequence (B, L, D) and the pooled first token (B, D).

        `present` (B, L) marks the tokens that are not padding.
        """
        embedded = self.tokens(ids) + self.segments.weight[0]
        x = self.norm(embedded + self.positions.weight[: ids.shape[1]])
        bias = torch.zeros_like(present, dtype=x.dtype).masked_fill(~present, float("-inf"))
        for layer in self.layers:
            x = layer(x, bias[:, None, None])
        return x, self.pooler(x[:, 0]).tanh()
