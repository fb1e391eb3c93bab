"""Small vocabularies in the formats of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "cat", ",", ".", "in", "z", "##ü", "##rich", "the", "it"]
MERGES = ("Ġ A", "c a", "ca t", "Ġ cat", "h e", "r e", "he re", "Ġ here")


def write_word_pieces(folder: Path) -> Path:
    """Write BERT's `vocab.txt` and return its folder."""
    folder = folder / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return folder


def write_byte_pairs(folder: Path) -> tuple[Path, int]:
    """Write GPT-2's `vocab.json` and `merges.txt`; return their folder and how many tokens."""
    folder = folder / "gpt2"
    folder.mkdir()
    tokens = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    numbers = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES), encoding="utf-8")
    return folder, len(tokens)
