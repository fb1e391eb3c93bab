"""Which digit is drawn or spoken: two small networks, trained on real data within the evaluation.

They judge a model without having seen it: real recordings and handwriting teach them, distorted at
random so that small faults of a generator do not decide. They know no file and no suite.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codi.audio import MelConfig, log_mel

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Progress = Callable[[str, int], Iterable[int]]


def quiet(what: str, total: int) -> Iterable[int]:
    """Return the steps 0 ... total - 1 without showing them."""
    del what
    return range(total)


class Classifier(nn.Module, ABC):
    """A convolutional network on prepared inputs (B, 1, H, W).

    Args:
        widths: channels of each layer; each halves H and W.
        columns: W, where its place tells something; None where only presence does.
        classes: how many there are.
    """

    def __init__(
        self, widths: Sequence[int], columns: int | None = None, classes: int = len(CLASSES)
    ) -> None:
        super().__init__()
        self.pooled = (2, 3) if columns is None else (2,)
        places = 1 if columns is None else columns >> len(widths)
        layers: list[nn.Module] = []
        before = 1
        for width in widths:
            layers += [
                nn.Conv2d(before, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            before = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * before * places, classes))

    @staticmethod
    @abstractmethod
    def prepare(x: Tensor) -> Tensor:
        """Return the network's input (B, 1, H, W) for a batch of media."""

    @staticmethod
    @abstractmethod
    def distort(x: Tensor, generator: torch.Generator) -> Tensor:
        """Return prepared inputs as another hand or another voice might have made them."""

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, classes) of prepared inputs."""
        found = self.features(x)
        pooled = [found.mean(self.pooled), found.amax(self.pooled)]
        return self.head(torch.cat([x.flatten(1) for x in pooled], dim=1))

    @torch.no_grad()
    def classify(self, x: Tensor) -> list[int]:
        """Return the likeliest class of each medium of a batch."""
        self.eval()
        return [int(i) for i in self(self.prepare(x)).argmax(1)]


def _uniform(generator: torch.Generator, size: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)


def _hidden(size: int, length: int, most: int, generator: torch.Generator) -> Tensor:
    """Return bool (B, length): a run of at most `most` that is true, somewhere."""
    first = _uniform(generator, size, 0.0, length)[:, None]
    count = _uniform(generator, size, 0.0, most)[:, None]
    at = torch.arange(length)[None]
    return (at >= first) & (at < first + count)


class PictureClassifier(Classifier):
    """Read the digit in pictures (B, 3, H, W) in [-1, 1], whatever its colour and place."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__(widths)

    @staticmethod
    def prepare(x: Tensor) -> Tensor:
        """Return the brightest channel, from 0 to 1, cut to 32 px around the light of 64 px."""
        light = (x.float().amax(1, keepdim=True) + 1.0) / 2.0
        if light.shape[2:] != (64, 64):
            light = F.interpolate(light, (64, 64), mode="area")
        weight = (light - 0.4 * light.amax((2, 3), keepdim=True)).clamp_min(1e-6)
        weight = weight / weight.sum((2, 3), keepdim=True)
        place = (torch.arange(64, device=x.device) + 0.5) / 32.0 - 1.0
        across, down = (weight.sum((1, 2)) * place).sum(1), (weight.sum((1, 3)) * place).sum(1)
        half, zero = torch.full_like(across, 0.5), torch.zeros_like(across)
        matrix = torch.stack([half, zero, across, zero, half, down], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(matrix, [len(x), 1, 32, 32], align_corners=False)
        return F.grid_sample(light, grid, align_corners=False)

    @staticmethod
    def distort(x: Tensor, generator: torch.Generator) -> Tensor:
        """Turn, stretch, slant, move, blur and dim; add noise."""
        size = len(x)
        angle = _uniform(generator, size, -0.25, 0.25)
        across, down = (_uniform(generator, size, 0.85, 1.2) for _ in range(2))
        slant = _uniform(generator, size, -0.25, 0.25)
        moved = [_uniform(generator, size, -0.15, 0.15) for _ in range(2)]
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.stack(
            [across * cos, slant - sin, moved[0], sin, down * cos, moved[1]], dim=1
        ).view(size, 2, 3)
        grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        soft = F.avg_pool2d(x, 3, 1, 1)
        x = torch.lerp(x, soft, _uniform(generator, size, 0.0, 1.0)[:, None, None, None])
        noise = torch.randn(x.shape, generator=generator)
        light = _uniform(generator, size, 0.7, 1.1)[:, None, None, None]
        return light * x + 0.06 * noise


class VoiceClassifier(Classifier):
    """Hear the digit in sounds (B, S) of 16 kHz."""

    MEL = MelConfig(hop=400, bins=40)
    SECONDS = 1.5

    def __init__(self, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__(widths, columns=VoiceClassifier.MEL.bins)  # a pitch is a place

    @staticmethod
    def prepare(x: Tensor) -> Tensor:
        """Return the log-mel spectrogram (B, 1, T, M) of the loudest 1.5 s, quiet cut away."""
        mel = log_mel(x, VoiceClassifier.MEL)  # (B, 1, T, M)
        top = mel.flatten(1).amax(1)[:, None, None, None]
        level = ((mel - top) / 8.0 + 1.0).clamp_min(0.0)  # 8 nats below the loudest is silence
        columns = int(VoiceClassifier.SECONDS * 16_000 / VoiceClassifier.MEL.hop)
        level = F.pad(level, (0, 0, 0, max(columns - level.shape[2], 0)))
        sums = F.pad(level.sum((1, 3)).cumsum(1), (1, 0))  # (B, T + 1)
        first = (sums[:, columns:] - sums[:, :-columns]).argmax(1)
        rows = first[:, None] + torch.arange(columns, device=x.device)
        return level.gather(2, rows[:, None, :, None].expand(-1, 1, -1, level.shape[3]))

    @staticmethod
    def distort(x: Tensor, generator: torch.Generator) -> Tensor:
        """Shift in time and pitch, stretch, hide a few columns and bands; add noise."""
        size = len(x)
        matrix = torch.zeros(size, 2, 3)
        matrix[:, 0, 0] = _uniform(generator, size, 0.94, 1.06)
        matrix[:, 0, 2] = _uniform(generator, size, -0.06, 0.06)
        matrix[:, 1, 1] = _uniform(generator, size, 0.85, 1.15)
        matrix[:, 1, 2] = _uniform(generator, size, -0.3, 0.3)
        grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        for axis, most in ((2, 8), (3, 5)):
            first = _uniform(generator, size, 0.0, x.shape[axis])[:, None]
            length = _uniform(generator, size, 0.0, most)[:, None]
            at = torch.arange(x.shape[axis])[None]
            hidden = (at >= first) & (at < first + length)
            x = x.masked_fill(hidden[:, None, :, None] if axis == 2 else hidden[:, None, None], 0.0)
        gain = _uniform(generator, size, -0.1, 0.1)[:, None, None, None]
        return (x + gain * (x > 0) + 0.05 * torch.randn(x.shape, generator=generator)).clamp_min(
            0.0
        )


def train_classifier(
    classifier: Classifier,
    media: Tensor | Sequence[Tensor],
    labels: Sequence[int],
    *,
    steps: int = 800,
    batch: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    what: str = "training a classifier",
    progress: Progress = quiet,
) -> Classifier:
    """Train on media with known classes, the same way every time, and return the classifier.

    Args:
        classifier: fresh weights.
        media: one batch of all media (n, ...), or several that are joined once prepared.
        labels: n class numbers.
        steps: of training.
        batch: media in a step.
        learning_rate: the highest one; it rises and falls once.
        seed: of the order of samples and of all distortions.
        what: the words beside the progress.
        progress: wraps the steps, e.g. to show a bar.

    Raises:
        ValueError: another number of labels than of media.
    """
    parts = [media] if isinstance(media, Tensor) else media
    with torch.no_grad():
        inputs = torch.cat(
            [classifier.prepare(x[i : i + 64]) for x in parts for i in range(0, len(x), 64)]
        )
    if len(inputs) != len(labels):
        raise ValueError(f"{len(inputs)} media and {len(labels)} labels; give one for each")
    targets = torch.tensor(list(labels))
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=learning_rate, weight_decay=0.02)
    classifier.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        for step in progress(what, steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * math.sin(math.pi * (step + 0.5) / steps)
            rows = torch.from_numpy(rng.integers(len(inputs), size=batch))
            scores = classifier(classifier.distort(inputs[rows], generator))
            loss = F.cross_entropy(scores, targets[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return classifier.eval()
