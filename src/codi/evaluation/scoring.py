"""From records to cells: how often facts are right, and how well impacts agree.

Pure: it knows no model, no file and no world, only what was asked for and what was read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from codi.evaluation.cells import Cell, Each
from codi.evaluation.records import Record
from codi.evaluation.statistics import (
    Interval,
    mean_interval,
    median_interval,
    wilson_interval,
)
from codi.evaluation.suites import Input, Task, Terms, partner
from codi.modalities import modality

MISMATCHES = 16
"""How many other samples each one is compared with to find what chance gives."""


@dataclass(frozen=True)
class _Number:
    """A cell before it knows its task."""

    output: str
    fact: str
    value: float | None
    n: int
    chance: float | None = None
    ci95: Interval | None = None
    source: str | None = None
    each: Each | None = None


Measure = Callable[[Task, Terms, Sequence[Record]], Iterator[_Number]]


def score(task: Task, terms: Terms, split: str, records: Sequence[Record]) -> list[Cell]:
    """Return the cells of a task: those of all its measures, in order."""
    if not records:
        return []
    numbers = [n for name in task.measures for n in MEASURES[name](task, terms, records)]
    several = len(task.outputs) > 1
    return [
        Cell(
            task=task.name,
            output=number.output,
            fact=f"{number.output} {number.fact}" if several else number.fact,
            split=split,
            value=number.value,
            n=number.n,
            chance=number.chance,
            ci95=number.ci95,
            source=number.source,
            each=number.each,
        )
        for number in numbers
    ]


def _share(
    output: str,
    fact: str,
    records: Sequence[Record],
    right: Sequence[bool],
    chance: float | None = None,
) -> _Number:
    value, n = float(np.mean(right)), len(right)
    ci95 = wilson_interval(sum(right), n)
    return _Number(output, fact, value, n, chance, ci95, each=_each(records, right))


def _each(records: Sequence[Record], values: Sequence[float] | np.ndarray) -> Each:
    """Return values from 0 to 1 by the items of their records."""
    pairs = zip(records, values, strict=True)
    return Each({record.index: float(value) for record, value in pairs})


def _scored(task: Task, terms: Terms, output: str) -> list[str]:
    """Return the facts that the inputs tell and the output can show."""
    return [fact for fact in terms.told(task) if fact in terms.shows[output]]


def measure_facts(task: Task, terms: Terms, records: Sequence[Record]) -> Iterator[_Number]:
    """Yield, for every output and fact, how often it is as the inputs told; missing is wrong."""
    for output in task.outputs:
        for fact in _scored(task, terms, output):
            right = [r.readings[output].facts.get(fact) == r.facts[fact] for r in records]
            yield _share(output, fact, records, right, 1.0 / len(terms.values[fact]))


def measure_captions(task: Task, terms: Terms, records: Sequence[Record]) -> Iterator[_Number]:
    """Yield how many captions can be read, and their precision and recall.

    Precision: of the facts told by the inputs and stated, how many are right. Recall: of the facts
    told by the inputs, how many are stated and right. "adds" is the share of captions that state
    something which no input tells. Facts of one caption are not independent, so that the intervals
    count captions: of precision those that state any of them.
    """
    for output in task.outputs:
        if not modality(output).is_caption:
            continue
        scored = set(_scored(task, terms, output))
        stated = [r.readings[output].facts for r in records]
        yield _share(output, "parses", records, [bool(facts) for facts in stated])
        yield _share(output, "adds", records, [bool(facts.keys() - scored) for facts in stated])
        judged = [
            (fact, facts[fact] == record.facts[fact])
            for facts, record in zip(stated, records, strict=True)
            for fact in facts.keys() & scored
        ]
        right = sum(is_right for _, is_right in judged)
        guesses = [1.0 / len(terms.values[fact]) for fact, _ in judged]
        stating = sum(bool(facts.keys() & scored) for facts in stated)
        yield _ratio(output, "precision", right, len(judged), stating, guesses)
        among = len(records) * len(scored)
        yield _ratio(output, "recall", right, among, len(records), guesses)


def _ratio(
    output: str, fact: str, right: int, among: int, n: int, guesses: Sequence[float]
) -> _Number:
    if not among:
        return _Number(output, fact, None, n)
    value = right / among
    chance = float(np.sum(guesses)) / among  # what the same statements would reach by guessing
    return _Number(output, fact, value, n, chance, wilson_interval(value * n, n))


Times = Sequence[float]


def compared_impacts(
    task: Task, terms: Terms, records: Sequence[Record]
) -> tuple[str, list[Times], list[Times]] | None:
    """Return whose impacts of each record are compared, in seconds, and what they belong to.

    Two outputs with impacts are compared with each other. One is compared with the truth where the
    truth was there to be followed: a kept stream, or true media through a codec. None where there
    is nothing to compare.
    """
    timed = [o for o in task.outputs if records[0].readings[o].impacts_s is not None]
    follows = bool(task.kept) or task.path != "model"
    if terms.match is None or not (len(timed) == 2 or (len(timed) == 1 and follows)):
        return None
    second: list[Times] = [r.readings[timed[-1]].impacts_s or () for r in records]
    if len(timed) == 2:
        return "+".join(timed), [r.readings[timed[0]].impacts_s or () for r in records], second
    return timed[0], [r.impacts_s or () for r in records], second


def measure_impacts(task: Task, terms: Terms, records: Sequence[Record]) -> Iterator[_Number]:
    """Yield how well impacts agree: F1, and the median distance of those that pair.

    Chance compares each sample with others.
    """
    compared = compared_impacts(task, terms, records)
    if compared is None or terms.match is None:
        return
    output, first, second = compared
    pairs = [terms.match(a, b) for a, b in zip(first, second, strict=True)]
    n = len(records)
    shifts = range(1, min(n, MISMATCHES + 1))
    crossed = [terms.match(first[i], second[(i + s) % n]) for s in shifts for i in range(n)]
    f1 = np.array([f for f, _ in pairs])
    chance = float(np.mean([f for f, _ in crossed])) if crossed else None
    ci95, each = mean_interval(f1, 0.0, 1.0), _each(records, f1)
    yield _Number(output, "impacts", float(f1.mean()), n, chance, ci95, each=each)
    offsets = _offsets_ms(pairs)
    if not len(offsets):
        yield _Number(output, "offset_ms", None, 0)
        return
    by_chance = _offsets_ms(crossed)
    yield _Number(
        output,
        "offset_ms",
        float(np.median(offsets)),
        len(offsets),
        float(np.median(by_chance)) if len(by_chance) else None,
        median_interval(offsets),
    )


def _offsets_ms(pairs: Sequence[tuple[float, Sequence[float]]]) -> np.ndarray:
    return 1000.0 * np.abs([offset for _, offsets in pairs for offset in offsets])


def measure_agreement(task: Task, terms: Terms, records: Sequence[Record]) -> Iterator[_Number]:
    """Yield how often two outputs made together show the same, whether or not it was asked for.

    A picture, a clip or a sound shows a fact or fails to; a caption may leave it out, so that with
    one only the items whose caption tells the fact count, and `n` says how many those are.
    """
    captions = {output for output in task.outputs if modality(output).is_caption}
    for a, b in itertools.combinations(task.outputs, 2):
        for fact in terms.values:
            if fact not in terms.shows[a] or fact not in terms.shows[b]:
                continue
            shown = [
                (r, {name: r.readings[name].facts.get(fact) for name in (a, b)}) for r in records
            ]
            told = [
                (r, facts[a] is not None and facts[a] == facts[b])
                for r, facts in shown
                if all(facts[c] for c in captions & {a, b})
            ]
            if told:
                telling, same = zip(*told, strict=True)
                chance = 1.0 / len(terms.values[fact])
                yield _share(f"{a}+{b}", f"same {fact}", telling, same, chance)


def pairs_of(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Return every record with its partner's, the lower index first, where both are there."""
    by_index = {record.index: record for record in records}
    return [
        (record, by_index[partner(record.index)])
        for record in records
        if record.index < partner(record.index) and partner(record.index) in by_index
    ]


def measure_obedience(task: Task, terms: Terms, records: Sequence[Record]) -> Iterator[_Number]:
    """Yield which of two conflicting prompts each output follows, fact by fact.

    Only items that differ from their partner in a fact say something about it; `n` counts those.
    The prompts of an item and of its partner are the same two, so that intervals resample pairs.
    An item without its partner's record is left out.
    """
    pairs = pairs_of(records)
    for output in task.outputs:
        for fact in terms.shows[output]:
            told = [g for g in task.inputs if fact in _told_by(terms, task, g)]
            differ = [(a, b) for a, b in pairs if a.facts[fact] != b.facts[fact]]
            if len(told) < len(task.inputs) or not differ:
                continue
            for given in task.inputs:
                right = [
                    (_follows(a, b, given, output, fact), _follows(b, a, given, output, fact))
                    for a, b in differ
                ]
                each = np.mean(right, axis=1)
                chance = 1.0 / len(terms.values[fact])
                what, n = f"{fact} of {given.label}", 2 * len(differ)
                ci95 = mean_interval(each, 0.0, 1.0)
                yield _Number(output, what, float(each.mean()), n, chance, ci95, given.label)


def _follows(record: Record, other: Record, given: Input, output: str, fact: str) -> bool:
    """Tell whether an output shows a fact as a prompt told it, its own or its partner's."""
    told = other if given.other else record
    return record.readings[output].facts.get(fact) == told.facts[fact]


def _told_by(terms: Terms, task: Task, given: Input) -> tuple[str, ...]:
    """Return the facts that one prompt of a task tells."""
    return terms.told(replace(task, inputs=(given,), weights=()))


def measure_sources(task: Task, terms: Terms, records: Sequence[Record]) -> Iterator[_Number]:
    """Yield for each of several prompts how many of its facts an output shows, as a mean.

    "told by text alone" are the facts that no other prompt tells: a prompt that is not heard has
    them at chance. Facts of one output are not independent, so that intervals resample outputs.
    """
    if len(task.inputs) < 2:
        return
    for output in task.outputs:
        by_input = [
            [fact for fact in _told_by(terms, task, given) if fact in terms.shows[output]]
            for given in task.inputs
        ]
        for given, told in zip(task.inputs, by_input, strict=True):
            alone = [fact for fact in told if sum(fact in facts for facts in by_input) == 1]
            for what, facts in (("", told), (" alone", alone)):
                if not facts or (not what and told == alone):
                    continue
                right = np.array(
                    [
                        [r.readings[output].facts.get(f) == r.facts[f] for f in facts]
                        for r in records
                    ]
                ).mean(axis=1)
                chance = float(np.mean([1.0 / len(terms.values[f]) for f in facts]))
                yield _Number(
                    output,
                    f"told by {given.label}{what}",
                    float(right.mean()),
                    len(records),
                    chance,
                    mean_interval(right, 0.0, 1.0),
                    given.label,
                    _each(records, right),
                )


MEASURES: dict[str, Measure] = {
    "facts": measure_facts,
    "captions": measure_captions,
    "impacts": measure_impacts,
    "agreement": measure_agreement,
    "obedience": measure_obedience,
    "sources": measure_sources,
}
"""Every measure that a task can name."""
