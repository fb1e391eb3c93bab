"""A transformer that reads a sentence into one vector. It knows no tokenizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codi.nn.attention import TransformerLayer


class SentenceEncoder(nn.Module):
    """Token ids (B, L) -> one vector (B, D) by a transformer and the mean over real tokens."""

    def __init__(self, vocabulary: int, length: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, present: Tensor) -> Tensor:
        """Return (B, D); `present` (B, L) marks the tokens that are not padding."""
        x = self.embedding(ids) + self.position[: ids.shape[1]]
        bias = torch.zeros_like(present, dtype=x.dtype).masked_fill(~present, float("-inf"))
        for layer in self.layers:
            x = layer(x, bias[:, None, None, :])
        weights = present[..., None].to(x.dtype)
        return self.norm((x * weights).sum(1) / weights.sum(1))
