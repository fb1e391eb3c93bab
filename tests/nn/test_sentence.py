"""The sentence transformer."""

from __future__ import annotations

import torch

from codi.nn.sentence import SentenceEncoder


def test_padding_changes_nothing() -> None:
    encoder = SentenceEncoder(vocabulary=20, length=12, width=16, heads=2, layers=2)
    ids = torch.randint(1, 20, (2, 6))
    padded = torch.nn.functional.pad(ids, (0, 5))
    torch.testing.assert_close(encoder(ids, ids != 0), encoder(padded, padded != 0))


def test_the_order_of_words_matters() -> None:
    encoder = SentenceEncoder(vocabulary=20, length=12, width=16, heads=2, layers=1)
    ids = torch.tensor([[3, 4, 5, 6]])
    turned = ids.flip(1)
    assert not torch.allclose(encoder(ids, ids != 0), encoder(turned, turned != 0), atol=1e-4)
