"""Text autoencoder after OPTIMUS (Li et al., 2020): a sentence <-> one latent vector.

A transformer encodes the sentence to the mean and variance of one vector; an autoregressive
transformer writes it back. The latent enters the decoder twice, as in OPTIMUS: added to every token
embedding, and as one extra position that every layer attends to.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from codi.codecs.base import Codec
from codi.nn.attention import TransformerLayer, causal_bias
from codi.nn.sentence import SentenceEncoder
from codi.tokenizer import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class TextObjective:
    """Objective of a text autoencoder.

    Attributes:
        kl_weight, free_bits: weight of the KL term, and the nats per latent number that are free
            (Kingma et al., 2016), against posterior collapse.
        latent_noise: deviation of the noise on latents in training, relative to their own spread,
            so that the decoder bears what a diffuser gets slightly wrong.
        word_dropout: share of the decoder's input tokens that are hidden in training, so that it
            listens to the latent rather than to its own habits (Bowman et al., 2016).
    """

    kl_weight: float = 0.02
    free_bits: float = 0.1
    latent_noise: float = 0.2
    word_dropout: float = 0.0


class SentenceAutoencoder(Codec):
    """Codec of sentences: a posterior of each, and next-token scores given a latent.

    Attributes:
        objective: its settings; pad: the token that stands for nothing in `ids`.
    """

    objective: TextObjective
    pad: int

    @abstractmethod
    def posterior(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, D) of q(z | text)."""

    @abstractmethod
    def ids(self, texts: Sequence[str]) -> Tensor:
        """Return the tokens (B, L) that the decoder writes, begin and end included."""

    @abstractmethod
    def logits(self, raw: Tensor, ids: Tensor) -> Tensor:
        """Return next-token scores (B, L, V) after each of `ids` (B, L), given the raw latent."""

    def encode_raw(self, x: Sequence[str]) -> Tensor:
        """Return the posterior's mean (B, D) of B sentences."""
        return self.posterior(x)[0]

    def losses(
        self, x: Sequence[str], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the reconstruction (nats per token) and KL terms for B sentences."""
        c = self.objective
        mean, log_variance = self.posterior(x)
        ids = self.ids(x).to(mean.device)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        spread = mean.detach().std(dim=0, keepdim=True) if mean.shape[0] > 1 else 1.0
        deviation = (log_variance.exp() + (c.latent_noise * spread) ** 2).sqrt()
        given = ids[:, :-1]
        if c.word_dropout:
            hidden = torch.rand(given.shape, generator=generator).to(mean.device) < c.word_dropout
            given = given.masked_fill(hidden, self.pad)
        scores = self.logits(mean + deviation * noise, given).float()
        wrong = cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=self.pad)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean(0)
        return {
            "reconstruction": wrong,
            "kl": c.kl_weight * (kl - c.free_bits).clamp_min(0.0).sum(),
        }


@dataclass(frozen=True)
class TextVAEConfig(TextObjective):
    """Shape of the text autoencoder, and its objective.

    Attributes:
        tokenizer: tokenizer file; length: most tokens of a sentence, begin and end included.
    """

    tokenizer: str
    vocabulary: int
    length: int = 32
    latent_width: int = 64
    width: int = 128
    heads: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 2

    def build(self) -> TextVAE:
        """Return the codec with fresh weights."""
        return TextVAE(self)


class TextVAE(SentenceAutoencoder):
    """Encode B sentences into latents (B, D), decode latents into sentences."""

    def __init__(self, config: TextVAEConfig) -> None:
        super().__init__(config.latent_width)
        c = self.config = self.objective = config
        self.tokenizer = load_tokenizer(c.tokenizer)
        self.pad = self.tokenizer.pad
        self.encoder = SentenceEncoder(c.vocabulary, c.length, c.width, c.heads, c.encoder_layers)
        self.to_moments = nn.Linear(c.width, 2 * c.latent_width)
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        nn.init.normal_(self.embedding.weight, std=c.width**-0.5)  # also the output layer
        self.position = nn.Parameter(torch.randn(c.length, c.width) * 0.02)
        self.latent_offset = nn.Linear(c.latent_width, c.width)
        self.latent_memory = nn.Linear(c.latent_width, c.width * c.decoder_layers)
        self.layers = nn.ModuleList(
            TransformerLayer(c.width, c.heads) for _ in range(c.decoder_layers)
        )
        self.norm = nn.LayerNorm(c.width)

    def unread(self, x: Sequence[str]) -> list[str]:
        """Return a line for each sentence that is longer than what is read."""
        return self.tokenizer.unread(x, self.config.length)

    def posterior(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, D) of q(z | text)."""
        ids = self.ids(texts)
        encoded = self.encoder(ids, ids != self.pad)
        mean, log_variance = self.to_moments(encoded).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 5.0)

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Return the tokens (B, L) of B sentences."""
        return self.tokenizer.encode(texts, self.config.length).to(self.shift.device)

    def logits(self, raw: Tensor, ids: Tensor) -> Tensor:
        """Return next-token scores (B, L, V) after each of `ids` (B, L), given the raw latent."""
        c = self.config
        raw = raw.to(self.latent_offset.weight.dtype)
        x = self.embedding(ids) + self.position[: ids.shape[1]] + self.latent_offset(raw)[:, None]
        memories = self.latent_memory(raw)[:, None].chunk(c.decoder_layers, dim=-1)
        bias = causal_bias(ids.shape[1], memory=1, device=ids.device)
        for layer, memory in zip(self.layers, memories, strict=True):
            x = layer(x, bias, memory)
        return self.norm(x) @ self.embedding.weight.T

    @torch.no_grad()
    def decode_raw(self, raw: Tensor) -> list[str]:
        """Return the greedily decoded sentences of raw latents (B, D)."""
        ids = torch.full((raw.shape[0], 1), self.tokenizer.begin, device=raw.device)
        done = torch.zeros(raw.shape[0], dtype=torch.bool, device=raw.device)
        while ids.shape[1] < self.config.length and not done.all():
            following = self.logits(raw, ids)[:, -1].argmax(-1)
            following = following.masked_fill(done, self.tokenizer.pad)
            done |= following == self.tokenizer.end
            ids = torch.cat([ids, following[:, None]], dim=1)
        return self.tokenizer.decode(ids[:, 1:])
