"""The default model's text prompt encoder: a small transformer over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from codi.encoders.base import PromptEncoder
from codi.nn.sentence import SentenceEncoder
from codi.tokenizer import load_tokenizer


@dataclass(frozen=True)
class TextEncoderConfig:
    """Shape of the text prompt encoder; `length` counts begin and end."""

    tokenizer: str
    vocabulary: int
    context_width: int
    length: int = 32
    width: int = 128
    heads: int = 4
    layers: int = 2

    def build(self) -> TextEncoder:
        """Return the encoder with fresh weights."""
        return TextEncoder(self)


class TextEncoder(PromptEncoder):
    """Embed B sentences."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config.width, config.context_width)
        c = self.config = config
        self.tokenizer = load_tokenizer(c.tokenizer)
        self.transformer = SentenceEncoder(c.vocabulary, c.length, c.width, c.heads, c.layers)

    def features(self, x: Sequence[str]) -> Tensor:
        """Return the features (B, D') of B sentences."""
        ids = self.tokenizer.encode(x, self.config.length).to(self.mean.device)
        return self.transformer(ids, ids != self.tokenizer.pad)

    def unread(self, x: Sequence[str]) -> list[str]:
        """Return a line for each sentence that is longer than what is read."""
        return self.tokenizer.unread(x, self.config.length)
