"""What is drawn, shown, done or heard: small networks, trained on real data within the evaluation.

They judge a model without having seen it: real media teach them, distorted at random so that small
faults of a generator do not decide. They know no file and no suite.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

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
    """A convolutional network on prepared inputs (B, C, H, W).

    Args:
        widths: channels of each layer; each halves H and W.
        columns: W, where its place tells something; None where only presence does.
        classes: how many there are.
        channels: C.
    """

    def __init__(
        self,
        widths: Sequence[int],
        columns: int | None = None,
        classes: int = len(CLASSES),
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.pooled = (2, 3) if columns is None else (2,)
        places = 1 if columns is None else columns >> len(widths)
        layers: list[nn.Module] = []
        before = channels
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
        """Return the network's input (B, C, H, W) for a batch of media."""

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

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = len(CLASSES)) -> None:
        super().__init__(widths, classes=classes)

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
        x = _blurred(_moved(x, generator, 0.25, (0.85, 1.2), 0.15, "zeros"), generator)
        noise = torch.randn(x.shape, generator=generator)
        light = _uniform(generator, len(x), 0.7, 1.1)[:, None, None, None]
        return light * x + 0.06 * noise


def _moved(
    x: Tensor,
    generator: torch.Generator,
    turn: float,
    stretch: tuple[float, float],
    move: float,
    beyond: str = "border",
) -> Tensor:
    """Return pictures (B, C, H, W) turned and slanted by up to `turn`, stretched and moved.

    `beyond` says what comes in from beyond the edge, as `padding_mode` of `grid_sample`.
    """
    size = len(x)
    angle = _uniform(generator, size, -turn, turn)
    across, down = (_uniform(generator, size, *stretch) for _ in range(2))
    slant = _uniform(generator, size, -turn, turn)
    moved = [_uniform(generator, size, -move, move) for _ in range(2)]
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([across * cos, slant - sin, moved[0], sin, down * cos, moved[1]], dim=1)
    grid = F.affine_grid(matrix.view(size, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode=beyond, align_corners=False)


def _blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures (B, C, H, W), each somewhere between sharp and soft."""
    soft = F.avg_pool2d(x, 3, 1, 1)
    return torch.lerp(x, soft, _uniform(generator, len(x), 0.0, 1.0)[:, None, None, None])


def _small(x: Tensor, size_px: int) -> Tensor:
    """Return pictures (B, C, H, W) at a size."""
    x = x.float()
    return x if x.shape[2:] == (size_px, size_px) else F.interpolate(x, size_px, mode="area")


class SceneClassifier(Classifier):
    """See one thing of whole pictures (B, 3, H, W) in [-1, 1], in colour: a hair, a hand."""

    SIZE_PX = 32

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = len(CLASSES)) -> None:
        super().__init__(widths, classes=classes, channels=3)

    @staticmethod
    def prepare(x: Tensor) -> Tensor:
        """Return the pictures at 32 px."""
        return _small(x, SceneClassifier.SIZE_PX)

    @staticmethod
    def distort(x: Tensor, generator: torch.Generator) -> Tensor:
        """Turn, stretch and move a little, blur, tint; add noise. Left stays left."""
        x = _blurred(_moved(x, generator, turn=0.1, stretch=(0.85, 1.15), move=0.12), generator)
        tint = 0.9 + 0.2 * torch.rand((len(x), 3, 1, 1), generator=generator)
        return tint * x + 0.05 * torch.randn(x.shape, generator=generator)


class MotionClassifier(Classifier):
    """See what is done in clips (B, F, 3, H, W) in [-1, 1], whatever its colour."""

    SIZE_PX = 32
    FRAMES = 8

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = len(CLASSES)) -> None:
        super().__init__(widths, classes=classes, channels=MotionClassifier.FRAMES)

    @staticmethod
    def prepare(x: Tensor) -> Tensor:
        """Return the light of eight frames, spread over the clip, less what does not change."""
        at = torch.linspace(0, x.shape[1] - 1, MotionClassifier.FRAMES).round().long()
        grey = _small(x[:, at].float().mean(2), MotionClassifier.SIZE_PX)  # (B, 8, H, W)
        return grey - grey[:, :, :1, :1]  # the background, as the corner has it

    @staticmethod
    def distort(x: Tensor, generator: torch.Generator) -> Tensor:
        """Turn, stretch, move and blur all frames alike; add noise."""
        x = _blurred(_moved(x, generator, turn=0.1, stretch=(0.85, 1.15), move=0.12), generator)
        return x + 0.05 * torch.randn(x.shape, generator=generator)


class VoiceClassifier(Classifier):
    """Hear the digit in sounds (B, S) of 16 kHz."""

    MEL = MelConfig(hop=400, bins=40)
    SECONDS = 1.5

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = len(CLASSES)) -> None:
        columns = VoiceClassifier.MEL.bins  # a pitch is a place
        super().__init__(widths, columns=columns, classes=classes)

    @staticmethod
    def prepare(x: Tensor) -> Tensor:
        """Return the log-mel spectrogram (B, 1, T, M) of the loudest 1.5 s, quiet cut away."""
        level = _levels(x, VoiceClassifier.MEL)
        columns = int(VoiceClassifier.SECONDS * 16_000 / VoiceClassifier.MEL.hop)
        level = F.pad(level, (0, 0, 0, max(columns - level.shape[2], 0)))
        sums = F.pad(level.sum((1, 3)).cumsum(1), (1, 0))  # (B, T + 1)
        first = (sums[:, columns:] - sums[:, :-columns]).argmax(1)
        rows = first[:, None] + torch.arange(columns, device=x.device)
        return level.gather(2, rows[:, None, :, None].expand(-1, 1, -1, level.shape[3]))

    @staticmethod
    def distort(x: Tensor, generator: torch.Generator) -> Tensor:
        """Shift in time and pitch, stretch, hide a few columns and bands; add noise."""
        return _reheard(x, generator)


class SoundClassifier(Classifier):
    """Hear what sounds in recordings (B, S) of 16 kHz, of any length from half a second."""

    MEL = MelConfig(hop=640, bins=48)

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = len(CLASSES)) -> None:
        super().__init__(widths, columns=SoundClassifier.MEL.bins, classes=classes)

    @staticmethod
    def prepare(x: Tensor) -> Tensor:
        """Return the log-mel spectrogram (B, 1, T, M) from silence (0) to the loudest (1)."""
        return _levels(x, SoundClassifier.MEL)

    @staticmethod
    def distort(x: Tensor, generator: torch.Generator) -> Tensor:
        """Begin elsewhere, shift in pitch, stretch, hide columns and bands; add noise."""
        first = int(torch.randint(x.shape[2], (1,), generator=generator))
        return _reheard(x.roll(first, 2), generator)


def _levels(x: Tensor, mel: MelConfig) -> Tensor:
    """Return log-mel spectrograms (B, 1, T, M), 1 at the loudest and 0 at 8 nats below it."""
    spectrum = log_mel(x, mel)
    top = spectrum.flatten(1).amax(1)[:, None, None, None]
    return ((spectrum - top) / 8.0 + 1.0).clamp_min(0.0)


def _reheard(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return spectrograms (B, 1, T, M) as another speaker or place might have made them."""
    size = len(x)
    matrix = torch.zeros(size, 2, 3)
    matrix[:, 0, 0] = _uniform(generator, size, 0.94, 1.06)
    matrix[:, 0, 2] = _uniform(generator, size, -0.06, 0.06)
    matrix[:, 1, 1] = _uniform(generator, size, 0.85, 1.15)
    matrix[:, 1, 2] = _uniform(generator, size, -0.3, 0.3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False)
    for axis, most in ((2, 8), (3, 5)):
        hidden = _hidden(size, x.shape[axis], most, generator)
        x = x.masked_fill(hidden[:, None, :, None] if axis == 2 else hidden[:, None, None], 0.0)
    gain = _uniform(generator, size, -0.1, 0.1)[:, None, None, None]
    return (x + gain * (x > 0) + 0.05 * torch.randn(x.shape, generator=generator)).clamp_min(0.0)


@torch.no_grad()
def prepared(classifier: Classifier, media: Tensor | Iterable[Tensor]) -> Tensor:
    """Return the inputs (n, C, H, W) of one batch of media, or of several that are joined."""
    parts = [media] if isinstance(media, Tensor) else media
    some = [classifier.prepare(x[i : i + 64]) for x in parts for i in range(0, len(x), 64)]
    return torch.cat(some)


def train_classifier(
    classifier: Classifier,
    media: Tensor | Iterable[Tensor],
    labels: Sequence[int],
    **settings: Any,
) -> Classifier:
    """Train on media with known classes; see `fit_classifier`, which takes prepared inputs."""
    return fit_classifier(classifier, prepared(classifier, media), labels, **settings)


def fit_classifier(
    classifier: Classifier,
    inputs: Tensor,
    labels: Sequence[int],
    *,
    steps: int = 800,
    batch: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    what: str = "training a classifier",
    progress: Progress = quiet,
) -> Classifier:
    """Train on inputs with known classes, the same way every time, and return the classifier.

    Args:
        classifier: fresh weights.
        inputs: of `prepared` (n, C, H, W).
        labels: n class numbers.
        steps: of training.
        batch: inputs in a step.
        learning_rate: the highest one; it rises and falls once.
        seed: of the order of samples and of all distortions.
        what: the words beside the progress.
        progress: wraps the steps, e.g. to show a bar.

    Raises:
        ValueError: another number of labels than of inputs.
    """
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
