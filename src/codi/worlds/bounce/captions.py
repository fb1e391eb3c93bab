"""Say facts in words, and read them back. Knows no picture and no sound."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from codi.worlds.bounce.facts import FACTS, SHOWS, Facts, check_facts

_ADJECTIVES = {
    "size": {
        "small": ("small", "little", "tiny"),
        "medium": ("medium", "medium-sized"),
        "large": ("large", "big", "huge"),
    },
    "colour": {
        "red": ("red",),
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green",),
        "cyan": ("cyan", "turquoise"),
        "blue": ("blue",),
        "purple": ("purple", "violet"),
        "pink": ("pink",),
    },
    "material": {
        "metal": ("metal", "steel"),
        "wood": ("wooden", "wood"),
        "glass": ("glass", "crystal"),
        "rubber": ("rubber",),
    },
}
_NOUNS = {
    "ball": ("ball", "sphere"),
    "square": ("square", "block"),
    "triangle": ("triangle", "pyramid"),
    "star": ("star",),
    "cross": ("cross", "plus"),
}
_ANY_NOUN = ("object", "thing")
_PACES = {
    "slow": ("slowly", "lazily", "in slow bounces"),
    "medium": ("steadily", "in steady bounces"),
    "fast": ("quickly", "rapidly", "in fast bounces"),
}
_PLACES = {
    "day": ("by day", "in daylight"),
    "dusk": ("at dusk", "at sunset"),
    "night": ("at night", "in the dark"),
}
_SILENT = ("", "there is", "we see")
_MOVING = ("falls and bounces", "drops and bounces", "is bouncing", "bounces", "hits the floor")
_WORDS: dict[str, tuple[str, str]] = {
    **{w: (f, v) for f, t in _ADJECTIVES.items() for v, ws in t.items() for w in ws},
    **{w: ("shape", v) for v, ws in _NOUNS.items() for w in ws},
    **{w.split()[-1]: ("background", v) for v, ws in _PLACES.items() for w in ws},
    **{w.split()[-2 if " " in w else 0]: ("tempo", v) for v, ws in _PACES.items() for w in ws},
}
_OTHER_WORDS = frozenset(
    " ".join(("a an the by of made", *_ANY_NOUN, *_SILENT, *_MOVING, "in at bounces")).split()
)
VOCABULARY = frozenset(_WORDS) | _OTHER_WORDS
"""Every word that a caption can hold."""


@dataclass(frozen=True)
class Caption:
    """A sentence and the facts that it tells."""

    text: str
    mentions: Facts


def write_caption(
    facts: Mapping[str, str],
    modality: str,
    rng: np.random.Generator,
    complete: bool = False,
    mention: Iterable[str] | None = None,
) -> Caption:
    """Write a caption of at most 20 lower-case words for what a medium of `modality` shows.

    Args:
        facts: the facts of the scene.
        modality: "image", "video", "audio" or "text".
        rng: chooses the facts that are told, their words and their order.
        complete: tell all that the modality shows, rather than a random non-empty part of it.
        mention: tell exactly these facts.

    Raises:
        ValueError: a fact that does not exist, that the modality does not show, or none at all.
    """
    check_facts(facts)
    shown = [fact for fact in SHOWS[modality] if fact in facts]
    told = shown if complete else list(mention) if mention is not None else _some(shown, rng)
    if not told or not set(told) <= set(shown):
        raise ValueError(
            f"cannot tell {told} of {modality}, which shows {', '.join(shown) or 'nothing'}"
        )
    mentions = {fact: facts[fact] for fact in FACTS if fact in told}
    return Caption(_sentence(mentions, modality, rng), mentions)


def _some(shown: list[str], rng: np.random.Generator) -> list[str]:
    count = int(rng.integers(1, len(shown) + 1))
    return [str(fact) for fact in rng.permutation(shown)[:count]]


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]


def _sentence(mentions: Facts, modality: str, rng: np.random.Generator) -> str:
    moves = "tempo" in SHOWS[modality] and ("tempo" in mentions or rng.random() < 0.7)
    subject = _subject(mentions, rng)
    action = _pick(_MOVING, rng) if moves else ""
    pace = _pick(_PACES[mentions["tempo"]], rng) if "tempo" in mentions else ""
    if pace.endswith("bounces"):
        action = _pick(("falls", "drops", "hits the floor"), rng)
    place = _pick(_PLACES[mentions["background"]], rng) if "background" in mentions else ""
    opening = "" if moves else _pick(_SILENT, rng)
    parts = [opening, subject, action, pace]
    parts = [place, *parts] if rng.random() < 0.25 else [*parts, place]
    return " ".join(part for part in parts if part)


def _subject(mentions: Facts, rng: np.random.Generator) -> str:
    """Return the noun phrase: "a small red wooden ball", "a thing made of glass"."""
    told = [fact for fact in _ADJECTIVES if fact in mentions]
    after = ""
    if "material" in told and rng.random() < 0.25:
        told.remove("material")
        after = f" made of {mentions['material']}"
    if rng.random() < 0.25:
        told = [str(fact) for fact in rng.permutation(told)]
    words = [_pick(_ADJECTIVES[fact][mentions[fact]], rng) for fact in told]
    nouns = _NOUNS[mentions["shape"]] if "shape" in mentions else _ANY_NOUN
    phrase = " ".join([*words, _pick(nouns, rng)])
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}{after}"


def parse_caption(text: str) -> Facts | None:
    """Return the facts that a caption tells, or None when it is no caption of this world.

    The first word that tells a fact decides it. None means that no fact was recognised or that
    more than half of the words are strange to this world.

    >>> parse_caption("a big red ball bounces slowly at night")["tempo"]
    'slow'
    """
    words = re.findall(r"[a-z][a-z-]*", text.lower())
    known = sum(word in VOCABULARY for word in words)
    facts: Facts = {}
    for word in words:
        fact, value = _WORDS.get(word, ("", ""))
        if fact:
            facts.setdefault(fact, value)
    if not facts or 2 * known < len(words):
        return None
    return {fact: facts[fact] for fact in FACTS if fact in facts}


def truncate_caption(text: str) -> Caption:
    """Return the first half of a caption, as the paper prompts joint training (section 4.1)."""
    words = text.split()
    kept = " ".join(words[: max((len(words) + 1) // 2, 1)])
    return Caption(kept, parse_caption(kept) or {})
