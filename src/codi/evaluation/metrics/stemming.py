"""Stems of English words by Porter's algorithm (1980). Knows no metric.

Rules are tables: a suffix, what takes its place, and in each step the longest suffix decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize",
    "abli": "able", "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize",
    "ation": "ate", "ator": "ate", "alism": "al", "iveness": "ive", "fulness": "ful",
    "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
_STEP_3 = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
)  # fmt: skip


def _is_consonant(word: str, i: int) -> bool:
    if word[i] in "aeiou":
        return False
    return word[i] != "y" or i == 0 or not _is_consonant(word, i - 1)


def _pattern(stem: str) -> str:
    """Return v for a vowel and c for a consonant, letter by letter."""
    return "".join("c" if _is_consonant(stem, i) else "v" for i in range(len(stem)))


def _measure(stem: str) -> int:
    """Return how often consonants follow vowels: Porter's m."""
    return len(re.findall("v+c+", _pattern(stem)))


def _has_vowel(stem: str) -> bool:
    return "v" in _pattern(stem)


def _ends_double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _is_consonant(word, len(word) - 1)


def _ends_short(stem: str) -> bool:
    """Tell whether a stem ends consonant, vowel, consonant, the last none of w, x, y."""
    return _pattern(stem)[-3:] == "cvc" and stem[-1] not in "wxy"


def _replace(word: str, table: dict[str, str], fits: Callable[[str], bool]) -> str:
    """Return the word with its longest known suffix replaced, where the stem fits."""
    ending = max((s for s in table if word.endswith(s)), key=len, default=None)
    if ending is None:
        return word
    stem = word[: -len(ending)]
    return stem + table[ending] if fits(stem) else word


def _without_plural(word: str) -> str:
    return _replace(word, {"sses": "ss", "ies": "i", "ss": "ss", "s": ""}, lambda _: True)


def _without_tense(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    stem = next((word[: -len(s)] for s in ("ed", "ing") if word.endswith(s)), None)
    if stem is None or not _has_vowel(stem):
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if _ends_double(stem) and stem[-1] not in "lsz":
        return stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _ends_short(stem) else stem


def _shortened(word: str) -> str:
    """Take off the suffixes of step 4."""
    ending = max((s for s in _STEP_4 if word.endswith(s)), key=len, default=None)
    if ending is None:
        return word
    stem = word[: -len(ending)]
    fits = _measure(stem) > 1 and (ending != "ion" or stem.endswith(("s", "t")))
    return stem if fits else word


def _tidied(word: str) -> str:
    """Take off a last e, and one of two last ls."""
    if word.endswith("e"):
        m = _measure(word[:-1])
        if m > 1 or (m == 1 and not _ends_short(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return the stem of a word in lower case.

    >>> [stem(word) for word in ("barking", "dogs", "relational", "sky")]
    ['bark', 'dog', 'relat', 'sky']
    """
    if len(word) <= 2:
        return word
    word = _without_tense(_without_plural(word))
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2, lambda s: _measure(s) > 0)
    word = _replace(word, _STEP_3, lambda s: _measure(s) > 0)
    return _tidied(_shortened(word))
