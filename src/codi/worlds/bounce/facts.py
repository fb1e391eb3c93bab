"""What can be said about a clip of the bounce world. Knows no pixel, no sample and no sentence."""

from __future__ import annotations

from collections.abc import Mapping

Facts = dict[str, str]

FACTS: dict[str, tuple[str, ...]] = {
    "shape": ("ball", "square", "triangle", "star", "cross"),
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
    "material": ("metal", "wood", "glass", "rubber"),
    "size": ("small", "medium", "large"),
    "tempo": ("slow", "medium", "fast"),
    "background": ("day", "dusk", "night"),
}
"""The values of every fact."""

SHOWS: dict[str, tuple[str, ...]] = {
    "image": ("shape", "colour", "material", "size", "background"),
    "video": tuple(FACTS),
    "audio": ("material", "size", "tempo"),
    "text": tuple(FACTS),
}
"""The facts that a medium of each modality can show. When the impacts happen is told by none."""

HELD_OUT: dict[tuple[str, str], frozenset[tuple[str, str]]] = {
    ("shape", "colour"): frozenset(
        {("ball", "blue"), ("square", "pink"), ("triangle", "green"), ("star", "red")}
    ),
    ("colour", "material"): frozenset(
        {("yellow", "metal"), ("cyan", "wood"), ("purple", "glass"), ("orange", "rubber")}
    ),
    ("shape", "material"): frozenset({("ball", "wood"), ("cross", "glass")}),
}
"""Pairs of values that never meet in the split "trained"; every value stays common on its own."""

SPLITS = ("trained", "held-out")
"""Scenes without any held-out pair, and scenes with at least one."""


def is_held_out(facts: Mapping[str, str]) -> bool:
    """Return whether `facts`, which may be partial, hold a pair kept out of training.

    >>> is_held_out({"shape": "ball", "colour": "blue"}), is_held_out({"shape": "ball"})
    (True, False)
    """
    return any(
        (facts.get(first), facts.get(second)) in pairs
        for (first, second), pairs in HELD_OUT.items()
    )


def check_facts(facts: Mapping[str, str]) -> None:
    """Raise ValueError, naming the allowed values, unless all of `facts` exist in this world."""
    for fact, value in facts.items():
        if fact not in FACTS:
            raise ValueError(f"unknown fact {fact!r}; choose from {', '.join(FACTS)}")
        if value not in FACTS[fact]:
            raise ValueError(f"unknown {fact} {value!r}; choose from {', '.join(FACTS[fact])}")
