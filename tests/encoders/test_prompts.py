"""The default prompt encoders: what they can tell apart."""

from __future__ import annotations

import torch

from tests.small import SENTENCE, small_config, small_model

MODEL = small_model(parts=small_config().parts(("encoders",)))


@torch.no_grad()
def test_a_sentence_does_not_depend_on_its_batch() -> None:
    encoder = MODEL.encoder("text")
    beside = encoder([SENTENCE, SENTENCE + " again and again"])[:1]
    torch.testing.assert_close(encoder([SENTENCE]), beside)


@torch.no_grad()
def test_an_image_is_a_clip_of_one_frame() -> None:
    encoder = MODEL.encoder("video")
    assert encoder(torch.randn(2, 3, 1, 64, 64)).shape == (2, 1, 32)


@torch.no_grad()
def test_the_order_of_frames_matters() -> None:
    encoder, clip = MODEL.encoder("video"), torch.rand(1, 3, 16, 64, 64)
    assert not torch.allclose(encoder(clip), encoder(clip.flip(2)), atol=1e-5)


@torch.no_grad()
def test_when_a_sound_happens_matters() -> None:
    encoder, sound = MODEL.encoder("audio"), torch.zeros(1, 32_000)
    sound[:, 2000:3000] = 0.5
    assert not torch.allclose(encoder(sound), encoder(sound.flip(1)), atol=1e-5)
