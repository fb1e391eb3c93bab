"""Codecs: reconstruct what was encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from codi.build import Model
from codi.codecs.mel import MelCodec, MelCodecConfig
from codi.codecs.vocoder import RESOLUTIONS
from codi.config import ConfigError
from codi.data.batches import Batch, Wanted
from codi.training.preview import reconstructions
from codi.training.task import Draws, Task
from codi.types import Media


@dataclass(frozen=True)
class ReconstructConfig:
    """Train the codec of `modality`; for text, on captions of the modalities in `captions`.

    `replace` is the share of a caption's words that give way to others, see `exchanged`. A codec
    trained on captions alone cannot say what it never saw together; this stands in for the free use
    of words that the pretrained language models of OPTIMUS bring along.

    `calibrate` measures the latents' shift and scale at the end. Without it latents stay what they
    were, and so do diffusers that know them: for a stage that trains the decoder alone.
    """

    modality: str
    captions: tuple[str, ...] = ()
    replace: float = 0.0
    calibrate: bool = True

    def build(self, model: Model) -> Task:
        """Return the task."""
        return Reconstruct(model, self)


def exchanged(texts: Sequence[str], share: float, draws: Draws) -> list[str]:
    """Return sentences of which a share of the words is exchanged.

    A word gives way to one that follows the same word in any of the sentences, so that what comes
    out is mostly a sentence too: "a red ball" beside "a green star" may become "a green ball".
    """
    rows = [text.split() for text in texts]
    before = [word for row in rows for word in ("", *row[:-1])]
    words = [word for row in rows for word in row]
    following: dict[str, list[str]] = {}
    for last, word in zip(before, words, strict=True):
        following.setdefault(last, []).append(word)
    hit = (draws.uniform(len(words)) < share).tolist()
    which = draws.uniform(len(words)).tolist()
    mixed = iter(
        [
            following[last][int(x * len(following[last]))] if h else word
            for last, word, h, x in zip(before, words, hit, which, strict=True)
        ]
    )
    return [" ".join(next(mixed) for _ in row) for row in rows]


class _CodecTask(Task):
    """An objective of the codec of one modality."""

    def __init__(self, model: Model, config: ReconstructConfig | VocodeConfig) -> None:
        super().__init__(model)
        self.modality = config.modality

    @property
    def parts(self) -> list[str]:
        """Return the codec."""
        return self.model.config.parts(("codecs",), [self.modality])

    def medium(self, batch: Batch) -> Media:
        """Return what the codec encodes."""
        return batch.media[self.modality]

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return what goes in beside what comes out."""
        return {self.modality: reconstructions(self.model, self.modality, self.medium(batch))}


class Reconstruct(_CodecTask):
    """The codec's own reconstruction objective, then the scale of its latents."""

    def __init__(self, model: Model, config: ReconstructConfig) -> None:
        super().__init__(model, config)
        self.config = config

    @property
    def wanted(self) -> Wanted:
        """Return the media, or the captions, of the codec's modality."""
        c = self.config
        return Wanted(captions=c.captions) if c.captions else Wanted(media=(c.modality,))

    @property
    def default_train(self) -> tuple[str, ...]:
        """Return the whole codec."""
        return tuple(f"{part}.*" for part in self.parts)

    def medium(self, batch: Batch) -> Media:
        """Return the captions, or the media."""
        return batch.texts if self.config.captions else super().medium(batch)

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the codec's terms."""
        codec = self.model.codec(self.config.modality)
        medium = self.medium(batch)
        if self.config.replace:
            medium = exchanged(medium, self.config.replace, draws)
        return codec.losses(medium, draws.generator)

    def finish(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Measure the latents' shift and scale."""
        if not self.config.calibrate:
            return
        codec = self.model.codec(self.config.modality)
        codec.calibrate(self.medium(batch) for batch in batches())


@dataclass(frozen=True)
class VocodeConfig:
    """Train the vocoder of an audio codec on crops of `columns` spectrogram columns."""

    modality: str = "audio"
    columns: int = 64

    def build(self, model: Model) -> Task:
        """Return the task."""
        return Vocode(model, self)


class Vocode(_CodecTask):
    """Spectrogram as the autoencoder returns it -> waveform, by a multi-resolution STFT loss.

    Raises:
        ConfigError: the modality's codec has no vocoder, or the crops are too short for the loss.
    """

    def __init__(self, model: Model, config: VocodeConfig) -> None:
        super().__init__(model, config)
        self.config = config
        [part] = self.parts
        codec = model.config.part(*part.split(".", 1))
        if not isinstance(codec, MelCodecConfig):
            raise ConfigError(f"the codec of {config.modality} has no vocoder to train")
        # The loss mirrors a crop's ends by up to this many samples, and a crop has to be longer.
        mirrored = max(-(-(window - hop) // 2) for window, hop in RESOLUTIONS)
        least = mirrored // codec.mel.hop + 1
        if config.columns < least:
            raise ConfigError(
                f"columns = {config.columns}: the loss needs crops of more than {mirrored} "
                f"samples, at {codec.mel.hop} a column; give {least} or more"
            )

    @property
    def wanted(self) -> Wanted:
        """Return the sound."""
        return Wanted(media=(self.config.modality,))

    @property
    def default_train(self) -> tuple[str, ...]:
        """Return the vocoder alone."""
        return tuple(f"{part}.vocoder.*" for part in self.parts)

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the spectral loss on one crop of every sound."""
        codec = self.model.codec(self.config.modality)
        assert isinstance(codec, MelCodec)
        x = self.medium(batch)
        total = x.shape[1] // codec.config.mel.hop
        columns = min(self.config.columns, total)
        start = int(draws.integers(0, total - columns + 1, 1))
        return codec.vocoder_losses(x, columns, start)
