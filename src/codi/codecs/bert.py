"""BERT (Devlin et al., 2019): token ids -> one vector a token, and one for the sentence.

It knows no tokenizer and no latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from codi.nn.attention import Attention

EPS = 1e-12
"""Of BERT's layer norms."""


class BertLayer(nn.Module):
    """Self-attention and feed-forward layer on (B, L, D), each normalised after its residual."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(width, width, heads, width // heads, bias=True)
        self.attention_norm = nn.LayerNorm(width, eps=EPS)
        self.to_hidden = nn.Linear(width, hidden)
        self.to_out = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return (B, L, D); `bias` is added to the scores of attention."""
        x = self.attention_norm(x + self.attention(x, x, bias))
        return self.norm(x + self.to_out(gelu(self.to_hidden(x))))


class Bert(nn.Module):
    """The encoder with its pooler, of sentences that are one segment."""

    def __init__(
        self, vocabulary: int, positions: int, width: int, heads: int, layers: int, hidden: int
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.segments = nn.Embedding(2, width)
        for embedding in (self.tokens, self.positions, self.segments):
            nn.init.normal_(embedding.weight, std=0.02)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.layers = nn.ModuleList(BertLayer(width, heads, hidden) for _ in range(layers))
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
