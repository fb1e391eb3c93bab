"""A model of every modality, small and untrained, and files to condition it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codi import media
from codi.build import Model, load_config
from codi.weights import save_model

SMALL = (
    "name='small'",
    "sampling.steps=2",
    "codecs.image.channels=16",
    "codecs.audio.autoencoder.channels=16",
    "codecs.audio.vocoder.channels=32",
    "codecs.text.width=40",
    "encoders.text.width=40",
    "diffusers.vision.channels=32",
    "diffusers.audio.channels=32",
)
"""What makes the preset `tiny` smaller still."""


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model whose weights are random, those that begin at zero too."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = Model(load_config("tiny", SMALL))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.03)
    save_model(model, folder)
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a picture, a clip and a sound of other sizes and rates than the model's."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    found = {name: folder / name for name in ("ball.png", "clip.mp4", "knock.wav")}
    Image.fromarray(rng.integers(0, 255, (80, 100, 3), dtype=np.uint8)).save(found["ball.png"])
    frames = rng.integers(0, 255, (30, 64, 64, 3), dtype=np.uint8)
    media.save_video(found["clip.mp4"], media.Video(frames, 10))
    samples = rng.uniform(-0.5, 0.5, 44_100).astype(np.float32)
    media.save_audio(found["knock.wav"], media.Audio(samples, 22_050))
    return found
