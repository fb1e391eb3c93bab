"""The text codec of BERT and GPT-2: one decoder, however it is run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from codi.codecs.optimus import Optimus, OptimusConfig
from codi.config import ConfigError
from tests.codecs.published import WORDS, write_byte_pairs, write_word_pieces

CONFIG = OptimusConfig(
    encoder_vocabulary=len(WORDS),
    decoder_vocabulary=40,
    encoder_positions=16,
    decoder_positions=16,
    latent_width=6,
    width=16,
    heads=2,
    hidden=24,
    encoder_layers=2,
    decoder_layers=2,
    scale_factor=2.0,
    length=9,
)


def _codec(**changes: Any) -> Optimus:
    codec = dataclasses.replace(CONFIG, **changes).build().eval()
    with torch.no_grad():
        for parameter in codec.parameters():  # louder than fresh, so that tokens differ
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return codec


def _spoken(tmp_path: Path, **changes: Any) -> Optimus:
    """Return a codec with small vocabularies."""
    folder, size = write_byte_pairs(tmp_path)
    return _codec(
        encoder_tokenizer=str(write_word_pieces(tmp_path)),
        decoder_tokenizer=str(folder),
        decoder_vocabulary=size + 3,
        **changes,
    )


@torch.no_grad()
def test_what_is_written_is_the_likeliest_by_the_scores_of_all() -> None:
    codec, raw = _codec(writing="greedy"), torch.randn(3, 6)
    ids = codec.write(raw)
    assert ids.shape[1] > 2
    assert (ids[:, 0] == codec.begin).all()
    likeliest = codec.logits(raw, ids).argmax(-1)
    for row, expected in zip(ids.tolist(), likeliest.tolist(), strict=True):
        end = row.index(codec.end)
        free = end if end < codec.config.length - 1 else end - 1  # the last one is forced
        assert row[1 : free + 1] == expected[:free]
        assert set(row[end + 1 :]) <= {codec.pad}


@torch.no_grad()
def test_the_halves_may_have_sizes_of_their_own() -> None:
    codec, raw = _codec(writing="greedy", decoder_width=24, decoder_heads=3), torch.randn(3, 6)
    assert codec.decoder.tokens.weight.shape == (40, 24)
    assert codec.decoder.layers[0].heads == 3
    assert codec.encoder.tokens.weight.shape[1] == 16
    ids = codec.write(raw)
    assert torch.equal(codec.logits(raw, ids).argmax(-1)[:, 0], ids[:, 1])


@pytest.mark.parametrize("writing", ["greedy", "multinomial"])
@torch.no_grad()
def test_a_sentence_does_not_depend_on_its_batch(writing: str) -> None:
    codec, raw = _codec(writing=writing), torch.randn(4, 6)
    together = codec.write(raw)
    for row, latent in zip(together, raw, strict=True):
        alone = codec.write(latent[None])[0]
        assert torch.equal(row[: len(alone)], alone)
        assert (row[len(alone) :] == codec.pad).all()


@torch.no_grad()
def test_a_sentence_ends_at_the_length_at_the_latest() -> None:
    codec = _codec()
    codec.decoder.tokens.weight[codec.end] = -100.0
    codec.decoder.norm.weight.zero_()
    codec.decoder.norm.bias.fill_(1.0)
    ids = codec.write(torch.randn(2, 6))
    assert ids.shape == (2, codec.config.length)
    assert (ids[:, -1] == codec.end).all()
    assert (ids[:, :-1] != codec.end).all()


@torch.no_grad()
def test_tokens_are_drawn_by_their_probability() -> None:
    codec = _codec(temperature=0.5)
    scores = torch.tensor([[0.0, 1.0, -1.0, 0.5]])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([codec._chosen(scores, generator) for _ in range(4000)])
    shares = torch.bincount(drawn.flatten(), minlength=4) / 4000
    torch.testing.assert_close(shares, (scores[0] / 0.5).softmax(0), atol=0.03, rtol=0)


@torch.no_grad()
def test_the_latent_enters_twice() -> None:
    codec, ids = _codec(), torch.tensor([[38, 1, 2]])
    without = codec.logits(torch.zeros(1, 6), ids)
    for part in (codec.latent_offset, codec.latent_memory):
        kept = part.weight.clone()
        part.weight.zero_()
        assert not torch.allclose(codec.logits(torch.ones(1, 6), ids), without)
        part.weight.copy_(kept)


@torch.no_grad()
def test_sentences_become_latents_and_latents_sentences(tmp_path: Path) -> None:
    codec = _spoken(tmp_path)
    texts = ["A cat in the", "it"]
    z = codec.encode(texts)
    assert z.shape == (2, 6)
    torch.testing.assert_close(z, 2.0 * codec.posterior(texts)[0])
    torch.testing.assert_close(z[1:], codec.encode(["IT"]), atol=1e-5, rtol=1e-5)
    decoded = codec.decode(z)
    assert len(decoded) == 2
    assert not any("<BOS>" in text.split()[:1] for text in decoded)


@torch.no_grad()
def test_repetitions_may_stay(tmp_path: Path) -> None:
    codec, raw = _spoken(tmp_path), torch.zeros(1, 6)
    pairs = codec.byte_pairs
    said = pairs.encode(["A cat A cat"], 9)
    codec.write = lambda raw: said  # type: ignore[method-assign]
    assert codec.decode_raw(raw) == ["A cat"]
    codec.config = dataclasses.replace(codec.config, remove_repetitions=False)
    assert codec.decode_raw(raw) == ["A cat A cat"]


def test_it_learns(tmp_path: Path) -> None:
    codec = _spoken(tmp_path)
    losses = codec.losses(["A cat", "in the it"], torch.Generator().manual_seed(0))
    assert set(losses) == {"reconstruction", "kl"}
    torch.stack(list(losses.values())).sum().backward()
    unused = {name for name, p in codec.named_parameters() if p.grad is None}
    assert unused == set()


def test_vocabularies_are_read_when_they_are_needed(tmp_path: Path) -> None:
    codec = _codec(encoder_tokenizer=str(tmp_path))
    with pytest.raises(ConfigError, match="cannot load a tokenizer"):
        codec.encode(["a cat"])
