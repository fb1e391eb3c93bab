"""Sentences to the words that caption metrics compare.

Published scores of captions come from the Penn Treebank tokenizer of Stanford's CoreNLP, which is a
Java program; these are its rules for what captions contain, in lower case and without punctuation.
Where its jar is given, `codi.evaluation.metrics.java` runs the program itself.
"""

from __future__ import annotations

import re

PUNCTUATION = frozenset(
    (
        "''",
        "'",
        "``",
        "`",
        "-lrb-",
        "-rrb-",
        "-lcb-",
        "-rcb-",
        ".",
        "?",
        "!",
        ",",
        ":",
        "-",
        "--",
        "...",
        ";",
    )
)
"""What the evaluation of COCO captions (Chen et al., 2015) leaves out after tokenizing."""

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_WORD = re.compile(
    r"""
    \.\.\.
    | (?:n't|'(?:s|re|ve|ll|d|m))(?!\w)
    | '[nN]'(?!\w)                                    # rock 'n' roll
    | (?:[a-z]\.){2,}                                 # u.s.
    | (?:mr|mrs|ms|dr|st|vs|etc|jr|sr|no)\.           # abbreviations keep their point
    | \d+(?:[.,:/-]\d+)*(?:st|nd|rd|th|s)?(?![^\W_])  # 3.5, 10,000, 12:30, 2-3, 3rd
    | @?[^\W_]+(?:[-_&/][^\W_]+)*(?:\+\+)?            # red, well-known, a/b, c++
    | '[^\W_]+ | ``? | ''? | --+ | \S
    """,
    re.VERBOSE,
)
_JOINED = {"cannot": "can not", "gonna": "gon na", "wanna": "wan na", "gotta": "got ta"}
_JOINED_WORD = re.compile(rf"\b({'|'.join(_JOINED)})\b")
_CONTRACTION = re.compile(r"(?<=\w)('s|'re|'ve|'ll|'d|'m|n't)\b")


def words_of(sentence: str) -> list[str]:
    """Return the words of a sentence: lower case, contractions apart, without punctuation.

    >>> words_of("A man's dog doesn't bark, it sings (loudly)!")
    ['a', 'man', "'s", 'dog', 'does', "n't", 'bark', 'it', 'sings', 'loudly']
    """
    text = sentence.lower().replace("’", "'").replace('"', " '' ")
    text = _JOINED_WORD.sub(lambda found: _JOINED[found[0]], text)
    text = _CONTRACTION.sub(r" \1", text)
    found = [_BRACKETS.get(word, word) for word in _WORD.findall(text)]
    return [word for word in found if word not in PUNCTUATION]
