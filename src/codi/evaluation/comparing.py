"""The metrics that suites name: from what a task has left on disk to one number with an interval.

Each reads features, words or times, hands them to `codi.evaluation.metrics`, and says how sure the
number is. It knows no network, no model, and no data set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from codi.evaluation.metrics import java
from codi.evaluation.metrics.captions import ConsensusScorer, bleu_counts, bleu_of, rouge_l
from codi.evaluation.metrics.classes import inception_interval, inception_score, softmax_kl
from codi.evaluation.metrics.embeddings import clipsim, cosines, frame_consistency, retrieval
from codi.evaluation.metrics.gaussians import frechet_distance, frechet_interval, gaussian_of
from codi.evaluation.metrics.kernels import kernel_distance
from codi.evaluation.metrics.meteor import meteor_stem
from codi.evaluation.metrics.synchrony import av_align, desync_s
from codi.evaluation.metrics.words import words_of
from codi.evaluation.statistics import (
    Interval,
    mean_interval,
    resampled_interval,
    wilson_interval,
)

_SPLIT_FROM = 5000
"""From so many samples on, the Inception Score is the mean over ten parts, as is the custom."""

_RESAMPLES = 100

_COSINES = (-1.0, 1.0)
_CIDER_MOST = 10.0


class Evidence(Protocol):
    """What a task has left of its first n items, and of the true media of the same items."""

    n: int
    programs: Path | None
    frame_s: float
    """Time from one frame of a clip to the next."""
    splits: int | None
    """Into how many parts a metric cuts the samples; None for the custom."""

    def rows(self, modality: str, kind: str = "features", true: bool = False) -> np.ndarray:
        """Return rows (n, ...) of the metric's extractor; true ones where nothing was made."""
        ...

    def words(self) -> list[str]:
        """Return the texts that were made."""
        ...

    def references(self) -> list[list[str]]:
        """Return the captions by people of every item."""
        ...

    def times(self, modality: str) -> list[tuple[float, ...]]:
        """Return when something happens in every item, in seconds."""
        ...

    def impacts(self) -> np.ndarray:
        """Return how well what strikes in the outputs agrees, as F1 of every item (n,)."""
        ...

    def apart(self) -> Evidence:
        """Return the same of the outputs made one by one."""
        ...


@dataclass(frozen=True)
class Number:
    """A value with its interval, and what chance gives.

    Attributes:
        items: values (n,) that it is the mean of; None where it is no mean over items.
        ends: between which these lie.
    """

    value: float
    ci95: Interval | None
    chance: float | None = None
    items: np.ndarray | None = field(default=None, compare=False, repr=False)
    ends: Interval = (-math.inf, math.inf)


Compute = Callable[[Evidence, Sequence[str]], Number]


@dataclass(frozen=True)
class Metric:
    """How a number is made, and what it needs.

    Attributes:
        compute: evidence, modalities -> number.
        kinds: of rows that it reads; none for texts and times.
        beside: what outputs are compared with: the true media of the same items, a set of true
            media, the prompt's text, the same made apart, or nothing.
        better: which way is better.
        program: file of a Java program it cannot do without.
        compares: how many modalities it is about; 0 where `times` or `together` settles that.
        times: the modalities of which it reads when things happen; a task has to make them all.
        tokens: whether it reads the words of captions, which a Java program may have to split.
        cuts: whether it is a mean over parts of the samples, whose number a suite may name.
        together: the modalities that its extractor looks at together, the first with the others
            beside it; a task has to make them all.
        world: whether it wants items of a world, which says when something strikes.
    """

    compute: Compute
    kinds: tuple[str, ...] = ()
    beside: Literal["", "true", "set", "prompt", "apart"] = ""
    better: Literal["higher", "lower"] = "higher"
    program: str = ""
    compares: int = 1
    times: tuple[str, ...] = ()
    tokens: bool = False
    cuts: bool = False
    together: tuple[str, ...] = ()
    world: bool = False


# --- distances between sets ---


def _frechet(found: Evidence, of: Sequence[str]) -> Number:
    made, true = found.rows(of[0]), found.rows(of[0], true=True)
    value = frechet_distance(gaussian_of(made), gaussian_of(true))
    return Number(value, frechet_interval(made, true, value))


def _kernel(found: Evidence, of: Sequence[str]) -> Number:
    distance = kernel_distance(found.rows(of[0]), found.rows(of[0], true=True))
    return Number(distance.value, distance.ci95)


def _inception(found: Evidence, of: Sequence[str]) -> Number:
    """Return the score over parts in order: items come in random order, so that parts are too."""
    logits = found.rows(of[0], "logits")
    splits = found.splits or (10 if len(logits) >= _SPLIT_FROM else 1)
    value = inception_score(logits, splits)
    return Number(value, inception_interval(logits, value, splits))


# --- means over items ---


def _mean(values: np.ndarray, least: float = -math.inf, most: float = math.inf) -> Number:
    """Return the mean of values that lie between `least` and `most`."""
    ci95 = mean_interval(values, least, most)
    return Number(float(np.mean(values)), ci95, items=values, ends=(least, most))


def _kl(found: Evidence, of: Sequence[str]) -> Number:
    values = softmax_kl(found.rows(of[0], "logits"), found.rows(of[0], "logits", true=True))
    return _mean(values, least=0.0)


def _prompt_cosine(found: Evidence, of: Sequence[str]) -> Number:
    return _mean(cosines(found.rows("text", true=True), found.rows(of[0])), *_COSINES)


def _clipsim(found: Evidence, of: Sequence[str]) -> Number:
    text, frames = found.rows("text", true=True), found.rows(of[0])
    return _mean(clipsim(text, frames if frames.ndim == 3 else frames[:, None]), *_COSINES)


def _pair_cosines(found: Evidence, of: Sequence[str]) -> np.ndarray:
    return cosines(found.rows(of[0]), found.rows(of[1]))


def _sim(found: Evidence, of: Sequence[str]) -> Number:
    values = _pair_cosines(found, of)
    a, b = found.rows(of[0]), found.rows(of[1])
    shifts = range(1, min(len(a), 9))  # items beside others: what any two outputs share
    crossed = [cosines(a, np.roll(b, shift, axis=0)).mean() for shift in shifts]
    chance = float(np.mean(crossed)) if crossed else None
    return dataclasses.replace(_mean(values, *_COSINES), chance=chance)


def _gain(found: Evidence, of: Sequence[str]) -> Number:
    return _mean(_pair_cosines(found, of) - _pair_cosines(found.apart(), of), -2.0, 2.0)


def _frame_consistency(found: Evidence, of: Sequence[str]) -> Number:
    frames = found.rows(of[0])
    if frames.ndim != 3 or frames.shape[1] < 2:
        raise ValueError(
            "frame_consistency wants an extractor of the frames of clips of two or more"
        )
    return _mean(frame_consistency(frames), *_COSINES)


def _recall(k: int) -> Compute:
    def compute(found: Evidence, of: Sequence[str]) -> Number:
        (recall,) = retrieval(found.rows(of[0]), found.rows(of[1]), (k,))
        return Number(recall.value, recall.ci95, recall.chance, recall.hits, (0.0, 1.0))

    return compute


def _av_align(found: Evidence, of: Sequence[str]) -> Number:
    del of
    sounds, clips = found.times("audio"), found.times("video")
    pairs = zip(sounds, clips, strict=True)
    values = np.array([av_align(a, v, found.frame_s) for a, v in pairs])
    shifts = range(1, min(len(clips), 9))
    crossed = [
        av_align(a, clips[(i + shift) % len(clips)], found.frame_s)
        for shift in shifts
        for i, a in enumerate(sounds)
    ]
    chance = float(np.mean(crossed)) if crossed else None
    return dataclasses.replace(_mean(values, 0.0, 1.0), chance=chance)


def _av_align_gain(found: Evidence, of: Sequence[str]) -> Number:
    """Return how much better sounds fit their clips, item by item, than the same made apart."""
    del of
    together, apart = (
        np.array(
            [
                av_align(a, v, found.frame_s)
                for a, v in zip(one.times("audio"), one.times("video"), strict=True)
            ]
        )
        for one in (found, found.apart())
    )
    return _mean(together - apart, -1.0, 1.0)


def _impacts_gain(found: Evidence, of: Sequence[str]) -> Number:
    """Return how much better impacts agree, item by item, than the same made apart."""
    del of
    return _mean(found.impacts() - found.apart().impacts(), -1.0, 1.0)


def _desync(found: Evidence, of: Sequence[str]) -> Number:
    """Return DeSync: how far from 0 the likeliest offset of every clip's sound is, in seconds."""
    return _mean(desync_s(found.rows(of[0], "offset_s")[:, 0]), least=0.0)


# --- captions ---


def _tokens(found: Evidence) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Return the words of captions and references: by Stanford's program where it is given."""
    made, references = found.words(), found.references()
    flat = [*made, *(r for some in references for r in some)]
    if found.programs is None:
        words = [words_of(sentence) for sentence in flat]
    else:
        words = java.stanford_words(flat, found.programs)
    rest = iter(words[len(made) :])
    return words[: len(made)], [[next(rest) for _ in some] for some in references]


def _bleu(found: Evidence, of: Sequence[str]) -> Number:
    del of
    pairs = zip(*_tokens(found), strict=True)
    counts = np.stack([bleu_counts(c, r) for c, r in pairs])
    value = bleu_of(counts.sum(axis=0))
    ci95 = resampled_interval(found.n, lambda i: bleu_of(counts[i].sum(axis=0)))
    if ci95[0] == ci95[1]:  # one caption, or none that matches: see `statistics`
        ci95 = wilson_interval(value * found.n, found.n)
    return Number(value, ci95)


def _each(score: Callable[[list[str], list[list[str]]], float]) -> Compute:
    def compute(found: Evidence, of: Sequence[str]) -> Number:
        del of
        pairs = zip(*_tokens(found), strict=True)
        return _mean(np.array([score(c, r) for c, r in pairs]), 0.0, 1.0)

    return compute


def _consensus(method: Callable[[ConsensusScorer, list[list[str]]], np.ndarray]) -> Compute:
    def compute(found: Evidence, of: Sequence[str]) -> Number:
        del of
        candidates, references = _tokens(found)
        return _mean(method(ConsensusScorer(references), candidates), 0.0, _CIDER_MOST)

    return compute


def _joined(found: Evidence) -> tuple[list[str], list[list[str]]]:
    """Return captions and references as words with spaces between, as COCO's harness does."""
    candidates, references = _tokens(found)
    return [" ".join(c) for c in candidates], [[" ".join(r) for r in some] for some in references]


def _meteor(found: Evidence, of: Sequence[str]) -> Number:
    del of
    scores, whole = java.meteor_15(*_joined(found), found.programs)
    ends = mean_interval(scores, 0.0, 1.0)
    assert ends is not None
    step = whole - float(scores.mean())  # the whole is not quite the mean
    return Number(whole, (ends[0] + step, ends[1] + step))


def _spice(found: Evidence, of: Sequence[str]) -> Number:
    del of
    return _mean(java.spice(*_joined(found), found.programs), 0.0, 1.0)


def _spider(found: Evidence, of: Sequence[str]) -> Number:
    del of
    candidates, references = _tokens(found)
    scores = java.spice(*_joined(found), found.programs)
    consensus = ConsensusScorer(references).cider_d(candidates)
    return _mean(java.spider(consensus, scores), 0.0, (_CIDER_MOST + 1.0) / 2.0)


_distance = partial(Metric, _frechet, ("features",), "set", "lower")
_pair = partial(Metric, kinds=("features",), compares=2)

METRICS: dict[str, Metric] = {
    "fid": _distance(),
    "fvd": _distance(),
    "fad": _distance(),
    "fd": _distance(),
    "kid": Metric(_kernel, ("features",), "set", "lower"),
    "inception_score": Metric(_inception, ("logits",), cuts=True),
    "softmax_kl": Metric(_kl, ("logits",), "true", "lower"),
    "clipsim": Metric(_clipsim, ("features",), "prompt"),
    "clip_score": Metric(_prompt_cosine, ("features",), "prompt"),
    "clap_score": Metric(_prompt_cosine, ("features",), "prompt"),
    "sim": _pair(_sim),
    "gain": _pair(_gain, beside="apart"),
    **{f"recall_at_{k}": _pair(_recall(k)) for k in (1, 5, 10)},
    "frame_consistency": Metric(_frame_consistency, ("features",)),
    "av_align": Metric(_av_align, compares=0, times=("audio", "video")),
    "av_align_gain": Metric(_av_align_gain, beside="apart", compares=0, times=("audio", "video")),
    "impacts_gain": Metric(
        _impacts_gain, beside="apart", compares=0, times=("audio", "video"), world=True
    ),
    "desync": Metric(
        _desync, ("offset_s",), better="lower", compares=0, together=("video", "audio")
    ),
    "bleu_4": Metric(_bleu, tokens=True),
    "rouge_l": Metric(_each(rouge_l), tokens=True),
    "meteor_stem": Metric(_each(meteor_stem), tokens=True),
    "meteor": Metric(_meteor, program=java.METEOR_JAR, tokens=True),
    "cider": Metric(_consensus(ConsensusScorer.cider), tokens=True),
    "cider_d": Metric(_consensus(ConsensusScorer.cider_d), tokens=True),
    "spice": Metric(_spice, program=java.SPICE_JAR, tokens=True),
    "spider": Metric(_spider, program=java.SPICE_JAR, tokens=True),
}
"""Every metric that a suite can name."""
