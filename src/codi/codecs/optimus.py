"""OPTIMUS (Li et al., 2020): BERT reads a sentence into one latent vector, GPT-2 writes it back.

The text codec of the paper (CoDi, section 3.3) in the layout of the published weights. As in
`text_vae`, the latent enters the decoder twice: added to every token embedding, and as one extra
position, its own key and value, that every layer attends to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from codi.codecs.bert import Bert
from codi.codecs.gpt2 import GPT2, Memory
from codi.codecs.text_vae import SentenceAutoencoder, TextObjective
from codi.codecs.vocabularies import (
    SPECIAL,
    BytePairs,
    WordPieces,
    load_byte_pairs,
    load_word_pieces,
    without_repetitions,
)
from codi.types import Shares


@dataclass(frozen=True)
class OptimusConfig(TextObjective):
    """Shape and habits of the codec; the defaults are those of the released CoDi.

    Attributes:
        encoder_tokenizer, decoder_tokenizer: folders or hub names of BERT's and GPT-2's tokenizer
            files. They are read when the first sentence is encoded or decoded.
        decoder_vocabulary: GPT-2's, and three special tokens at its end.
        width, heads: of the encoder, and of the decoder unless decoder_width and decoder_heads say
            otherwise.
        hidden: width inside the encoder's feed-forward layers; the decoder's is 4 x its width.
        encoder_activation: of those; the decoder's is GPT-2's own.
        encoder_segments: how many kinds of segments the encoder was trained with; the first is
            every sentence's.
        encoder_eps, decoder_eps: of the layer norms.
        scale_factor: what raw latents are multiplied by.
        length: most tokens of a written sentence, begin and end included.
        writing: whether the likeliest token follows, or one drawn by its probability at
            `temperature`.
        seed: of the draws. They are the same for every sentence, so that a latent is always the
            same sentence, whatever was decoded beside or before it.
        remove_repetitions: whether words and phrases said twice in a row are said once.
    """

    shares: ClassVar[Shares] = {
        "encoder": ("encoder.*", "to_moments.*"),
        "decoder": ("decoder.*", "latent_offset.*", "latent_memory.*"),
    }

    encoder_tokenizer: str = "bert-base-cased"
    decoder_tokenizer: str = "gpt2"
    encoder_vocabulary: int = 28_996
    decoder_vocabulary: int = 50_260
    encoder_positions: int = 512
    decoder_positions: int = 1024
    latent_width: int = 768
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    encoder_layers: int = 12
    decoder_layers: int = 12
    decoder_width: int | None = None
    decoder_heads: int | None = None
    encoder_activation: Literal["gelu", "relu", "swish"] = "gelu"
    encoder_segments: int = 2
    encoder_eps: float = 1e-12
    decoder_eps: float = 1e-5
    scale_factor: float = 4.3108
    length: int = 30
    writing: Literal["greedy", "multinomial"] = "multinomial"
    temperature: float = 1.0
    seed: int = 0
    remove_repetitions: bool = True

    def build(self) -> Optimus:
        """Return the codec with fresh weights."""
        return Optimus(self)


class Optimus(SentenceAutoencoder):
    """Encode B sentences into latents (B, D), decode latents into sentences."""

    def __init__(self, config: OptimusConfig) -> None:
        super().__init__(config.latent_width, config.scale_factor)
        c = self.config = self.objective = config
        self.pad, self.begin, self.end = range(
            c.decoder_vocabulary - len(SPECIAL), c.decoder_vocabulary
        )
        self.encoder = Bert(
            c.encoder_vocabulary,
            c.encoder_positions,
            c.width,
            c.heads,
            layers=c.encoder_layers,
            hidden=c.hidden,
            activation=c.encoder_activation,
            eps=c.encoder_eps,
            segments=c.encoder_segments,
        )
        self.to_moments = nn.Linear(c.width, 2 * c.latent_width, bias=False)
        width, heads, layers = (
            c.decoder_width or c.width,
            c.decoder_heads or c.heads,
            c.decoder_layers,
        )
        self.decoder = GPT2(
            c.decoder_vocabulary, c.decoder_positions, width, heads, layers, c.decoder_eps
        )
        self.latent_offset = nn.Linear(c.latent_width, width, bias=False)
        self.latent_memory = nn.Linear(c.latent_width, width * layers, bias=False)

    @property
    def word_pieces(self) -> WordPieces:
        """Return the encoder's tokenizer.

        Raises:
            ConfigError: its files are missing.
        """
        return load_word_pieces(self.config.encoder_tokenizer)

    @property
    def byte_pairs(self) -> BytePairs:
        """Return the decoder's tokenizer.

        Raises:
            ConfigError: its files are missing.
        """
        return load_byte_pairs(self.config.decoder_tokenizer, self.config.decoder_vocabulary)

    def unread(self, x: Sequence[str]) -> list[str]:
        """Return a line for each sentence that is longer than what is read."""
        return self.word_pieces.unread(x, self.config.encoder_positions)

    def moments(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, D) of the encoder's pooled outputs (B, width)."""
        mean, log_variance = self.to_moments(pooled).float().chunk(2, dim=1)
        return mean, log_variance

    def posterior(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, D) of q(z | text)."""
        ids = self.word_pieces.encode(texts, self.config.encoder_positions)
        ids = ids.to(self.to_moments.weight.device)
        return self.moments(self.encoder(ids, ids != self.word_pieces.pad)[1])

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Return the tokens (B, L) that the decoder writes, begin and end included."""
        return self.byte_pairs.encode(texts, self.config.length)

    def memories(self, raw: Tensor) -> list[Memory]:
        """Return the one position that each layer knows of the latent from the beginning."""
        layers = self.decoder.layers
        split: list[Tensor] = [
            layer.split(part)  # type: ignore[operator]
            for layer, part in zip(
                layers, self.latent_memory(raw)[:, None].chunk(len(layers), dim=2), strict=True
            )
        ]
        return [(part, part) for part in split]

    def logits(self, raw: Tensor, ids: Tensor) -> Tensor:
        """Return next-token scores (B, L, V) after each of `ids` (B, L), given the raw latent."""
        raw = raw.to(self.latent_offset.weight.dtype)
        offset = self.latent_offset(raw)[:, None]
        return self.decoder.scores(self.decoder(ids, offset, self.memories(raw))[0])

    @torch.no_grad()
    def write(self, raw: Tensor) -> Tensor:
        """Return the tokens (B, L) written for raw latents (B, D), padded after their ends.

        A sentence that has not ended by `length` ends there.
        """
        c = self.config
        raw = raw.to(self.latent_offset.weight.dtype)
        offset, memories = self.latent_offset(raw)[:, None], self.memories(raw)
        generator = torch.Generator().manual_seed(c.seed)
        ids = torch.full((raw.shape[0], 1), self.begin, device=raw.device)
        done = torch.zeros(raw.shape[0], dtype=torch.bool, device=raw.device)
        while ids.shape[1] < c.length and not done.all():
            hidden, memories = self.decoder(ids[:, -1:], offset, memories)
            following = self._chosen(self.decoder.scores(hidden[:, -1]).float(), generator)
            if ids.shape[1] == c.length - 1:
                following = torch.full_like(following, self.end)
            following = following.masked_fill(done, self.pad)
            done |= following == self.end
            ids = torch.cat([ids, following[:, None]], dim=1)
        return ids

    def _chosen(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        """Return the tokens (B,) that follow by their scores (B, V)."""
        if self.config.writing == "greedy":
            return scores.argmax(-1)
        # The largest of p / Exp(1) is a draw by p; one draw serves all sentences.
        waits = torch.empty(scores.shape[1]).exponential_(generator=generator).to(scores.device)
        return ((scores / self.config.temperature).softmax(-1) / waits).argmax(-1)

    def decode_raw(self, raw: Tensor) -> list[str]:
        """Return the written sentences of raw latents (B, D)."""
        texts = [self.byte_pairs.sentence(row) for row in self.write(raw).tolist()]
        if self.config.remove_repetitions:
            texts = [without_repetitions(text) for text in texts]
        return texts
