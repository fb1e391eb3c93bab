"""CLIP and CLAP of the `transformers` library, from a folder or a name of its hub.

They are the prompt encoders of `codi.encoders`, with their preprocessing, at the sizes that the
published configuration says; so what a metric sees is what a prompt would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from codi.encoders.clap import MEL, ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig
from codi.encoders.published import load_published, load_published_config, load_published_tokenizer
from codi.evaluation.extractors.base import (
    Extractor,
    float32,
    pixels_of,
    tensors_digest,
    waveforms_of,
)


class ClipExtractor(Extractor):
    """Embeddings of sentences and pictures (n, D), and of the frames of clips (n, F, D).

    Raises:
        ConfigError: `transformers` or the files are missing.
    """

    name = "clip"
    preprocessing = "bicubic to the tower's size; each frame of a clip on its own"

    def __init__(self, source: str, device: str = "cpu") -> None:
        self.source, self.device = source, device
        whole = load_published_config("CLIPConfig", source)
        text, vision = whole.text_config, whole.vision_config
        self.text = ClipTextConfig(
            context_width=whole.projection_dim,
            vocabulary=text.vocab_size,
            length=text.max_position_embeddings,
            width=text.hidden_size,
            heads=text.num_attention_heads,
            layers=text.num_hidden_layers,
            hidden_width=text.intermediate_size,
            pretrained=source,
        ).build()
        self.vision = ClipVisionConfig(
            context_width=whole.projection_dim,
            size_px=vision.image_size,
            patch=vision.patch_size,
            width=vision.hidden_size,
            heads=vision.num_attention_heads,
            layers=vision.num_hidden_layers,
            hidden_width=vision.intermediate_size,
            pretrained=source,
        ).build()
        for tower in (self.text, self.vision):
            tower.eval().to(device)
        self.digest = tensors_digest(self.text, self.vision)

    @torch.no_grad()
    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return embeddings of length 1."""
        embeds = {"text": self._texts, "image": self._pictures, "video": self._clips}
        if modality not in embeds:
            raise self.refuse(modality, *embeds)
        return {"features": float32(embeds[modality](items))}

    def _texts(self, items: Sequence[Any]) -> Tensor:
        return self.text.embed(list(items))

    def _pictures(self, items: Sequence[Any]) -> Tensor:
        return self._clips(items)[:, 0]

    def _clips(self, items: Sequence[Any]) -> Tensor:
        """Return an embedding for each frame, (n, F, D)."""
        x = pixels_of(items) / 127.5 - 1.0  # (B, 3, F, H, W)
        frames = x.transpose(1, 2).flatten(0, 1)[:, :, None].to(self.device)
        return self.vision.embed(frames).unflatten(0, (len(items), -1))


class ClapExtractor(Extractor):
    """Embeddings (n, D) of sentences and sounds, by a CLAP without fusion.

    Raises:
        ConfigError: `transformers` or the files are missing, or a CLAP with fusion.
    """

    name = "clap"
    preprocessing = "48 kHz, the first 10 s, shorter sounds repeated"

    def __init__(self, source: str, device: str = "cpu") -> None:
        self.source, self.device = source, device
        whole = load_published_config("ClapConfig", source)
        audio = whole.audio_config
        columns = audio.spec_size * (audio.spec_size // MEL.bins)  # the tower folds them into rows
        self.audio = ClapAudioConfig(
            context_width=whole.projection_dim,
            sample_rate_hz=MEL.sample_rate_hz,
            duration_s=min(10.0, (columns - 1) * MEL.hop / MEL.sample_rate_hz),
            channels=audio.patch_embeds_hidden_size,
            depths=tuple(audio.depths),
            heads=tuple(audio.num_attention_heads),
            window=audio.window_size,
            patch=audio.patch_size,
            picture=audio.spec_size,
            pretrained=source,
        ).build()
        self.text = load_published("ClapTextModelWithProjection", source, {})
        self.tokenizer = load_published_tokenizer("AutoTokenizer", source)
        for tower in (self.audio, self.text):
            tower.eval().to(device)
        self.digest = tensors_digest(self.audio, self.text)

    @torch.no_grad()
    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return embeddings of length 1."""
        embeds = {"text": self._texts, "audio": self._sounds}
        if modality not in embeds:
            raise self.refuse(modality, *embeds)
        return {"features": float32(embeds[modality](items))}

    def _sounds(self, items: Sequence[Any]) -> Tensor:
        return self.audio.embed(waveforms_of(items, MEL.sample_rate_hz).to(self.device))

    def _texts(self, items: Sequence[Any]) -> Tensor:
        words = self.tokenizer(list(items), padding=True, truncation=True, return_tensors="pt")
        return normalize(self.text(**words.to(self.device)).text_embeds, dim=-1)
