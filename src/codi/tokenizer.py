"""Sentences -> token ids and back, through the `tokenizers` library.

Every text part names its tokenizer file; those that ship are byte-level BPEs, so any UTF-8 text has
ids, and know small letters alone, as the captions do that they and the models were trained on: a
prompt means the same in capitals. It knows no model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codi.config import ConfigError
from codi.folders import PRESETS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

PAD, BEGIN, END = "<pad>", "<bos>", "<eos>"

_SHOWN = 5
"""Words that show where a text was cut."""


class Tokenizer:
    """A loaded tokenizer: `encode` to padded ids, `decode` back."""

    def __init__(self, library: Library) -> None:
        self.library = library
        # A sentence that spells "<eos>" is that sentence, and does not end there.
        library.encode_special_tokens = True
        self.pad, self.begin, self.end = (self._special(token) for token in (PAD, BEGIN, END))

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return self.library.get_vocab_size()

    def _special(self, token: str) -> int:
        number = self.library.token_to_id(token)
        if number is None:
            raise ConfigError(f"the tokenizer has no token {token!r}; train it with special tokens")
        return int(number)

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Return ids (B, L), each `begin ... end` cut to `length` and padded to the longest."""
        rows = [
            [self.begin, *e.ids[: length - 2], self.end]
            for e in self.library.encode_batch(list(texts), add_special_tokens=False)
        ]
        longest = max(len(row) for row in rows)
        return torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows])

    def decode(self, ids: Tensor) -> list[str]:
        """Return the sentences of ids (B, L), without special tokens, up to the first end."""
        texts = []
        for row in ids.tolist():
            kept = row[: row.index(self.end)] if self.end in row else row
            texts.append(self.library.decode(kept, skip_special_tokens=True).strip())
        return texts

    def unread(self, texts: Sequence[str], length: int) -> list[str]:
        """Return a line for each text that `encode` cuts: how much of it is read, and to where."""
        return cut_lines(
            texts,
            length - 2,
            lambda text: self.library.encode(text, add_special_tokens=False).ids,
            self.library.decode,
        )

    def kept(self, text: str, length: int) -> tuple[int, int]:
        """Return (tokens of `text` that fit in `length`, tokens it has)."""
        count = len(self.library.encode(text, add_special_tokens=False).ids)
        return min(count, length - 2), count


def cut_lines(
    texts: Iterable[str],
    most: int,
    encode: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
) -> list[str]:
    """Return a line for each text of more than `most` tokens: how many are read, and to where."""
    lines = []
    for text in texts:
        ids = encode(text)
        if len(ids) > most:
            end = " ".join(decode(ids[:most]).split()[-_SHOWN:])
            lines.append(f'the first {most} of {len(ids)} tokens are read, to "... {end}"')
    return lines


@lru_cache(maxsize=8)
def load_tokenizer(file: str) -> Tokenizer:
    """Load `file`: a path, or the name of one that ships with the package's presets.

    Raises:
        ConfigError: no such file.
    """
    from tokenizers import Tokenizer as Library

    for path in (Path(file), PRESETS / file):
        if path.is_file():
            return Tokenizer(Library.from_file(str(path)))
    raise ConfigError(f"no tokenizer file {file!r}: give a path, or a name from {PRESETS}")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE of `vocabulary` entries on `texts`."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    return Tokenizer(library)


def extend_tokenizer(tokenizer: Tokenizer, texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a BPE that goes on merging where `tokenizer` stopped, on `texts`, to `vocabulary`.

    What has an id keeps it, so that weights of the shorter vocabulary are those of its first rows.
    There are fewer entries than asked for if every word is one entry before that.

    Raises:
        ConfigError: not a BPE, or it has as many entries already.
    """
    from tokenizers import Tokenizer as Library

    library = tokenizer.library
    table = json.loads(library.to_str())
    if table["model"]["type"] != "BPE":
        raise ConfigError(f"only a BPE can be extended, and this is a {table['model']['type']}")
    if vocabulary <= len(tokenizer):
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} entries; ask for more than that to extend it"
        )
    ids, merges = table["model"]["vocab"], table["model"]["merges"]
    normal = library.normalizer.normalize_str if library.normalizer else str
    split = library.pre_tokenizer.pre_tokenize_str
    counts = Counter(word for text in texts for word, _ in split(normal(text)))
    spelled = {word: [t.value for t in library.model.tokenize(word)] for word in counts}
    while len(ids) < vocabulary:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in spelled.items():
            for pair in pairwise(pieces):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(list(best))
        ids.setdefault("".join(best), len(ids))
        spelled = {word: _merged(pieces, best) for word, pieces in spelled.items()}
    return Tokenizer(Library.from_str(json.dumps(table)))


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the pieces with every occurrence of `pair` as one."""
    merged: list[str] = []
    for piece in pieces:
        # A piece that has just been merged is longer than the pair's first, so it cannot match.
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
