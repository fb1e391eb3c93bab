"""The text autoencoder."""

from __future__ import annotations

import pytest
import torch

from codi.codecs.text_vae import TextVAE, TextVAEConfig
from tests.small import SENTENCE

TEXTS = ["a red ball", "two small blue cubes fall", "a glass star rings", "nothing moves here"]


def _codec(**changes: float) -> TextVAE:
    settings = {"latent_width": 16, "width": 32, "heads": 2, "encoder_layers": 1} | changes
    return TextVAEConfig("tokenizer-tiny.json", 512, decoder_layers=1, **settings).build()  # type: ignore[arg-type]


def test_it_writes_back_what_it_has_learnt() -> None:
    codec = _codec(kl_weight=0.0, latent_noise=0.0)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        optimiser.zero_grad()
        torch.stack(list(codec.losses(TEXTS, generator).values())).sum().backward()
        optimiser.step()
    codec.calibrate([TEXTS])
    assert codec.decode(codec.encode(TEXTS)) == TEXTS


@torch.no_grad()
def test_a_sentence_does_not_depend_on_its_batch() -> None:
    codec = _codec()
    alone = codec.encode([SENTENCE])
    beside = codec.encode([SENTENCE, SENTENCE + " again and again and again"])[:1]
    torch.testing.assert_close(alone, beside)


@torch.no_grad()
def test_decoding_stops_at_the_length() -> None:
    codec = _codec()
    torch.nn.init.zeros_(codec.norm.weight)
    torch.nn.init.ones_(codec.norm.bias)
    torch.nn.init.zeros_(codec.embedding.weight)
    codec.embedding.weight[40] = 1.0  # the same token for ever
    [text] = codec.decode(torch.zeros(1, 16))
    kept, count = codec.tokenizer.kept(text, 1000)
    assert kept == count
    assert count <= codec.config.length


def test_free_bits_cost_nothing() -> None:
    generous, strict = _codec(free_bits=1e3), _codec(free_bits=0.0)
    assert generous.losses(TEXTS)["kl"] == 0.0
    assert strict.losses(TEXTS)["kl"] > 0.0


def test_words_that_are_hidden_are_hidden() -> None:
    codec = _codec(word_dropout=1.0, latent_noise=0.0, kl_weight=0.0)
    with torch.no_grad():
        for parameter in (*codec.latent_offset.parameters(), *codec.latent_memory.parameters()):
            parameter.zero_()  # nothing else tells the sentences apart
    sentences = ["red red red", "blue blue blue"]
    seen: list[torch.Tensor] = []
    codec.norm.register_forward_hook(lambda _module, _given, output: seen.append(output))
    codec.losses(sentences, torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen[0][0], seen[0][1])


@pytest.mark.parametrize("size", [1, 3])
def test_losses_are_finite_for_any_batch(size: int) -> None:
    losses = _codec().losses(TEXTS[:size], torch.Generator().manual_seed(0))
    assert all(torch.isfinite(value) for value in losses.values())
