"""Sentences -> token ids and back, through the `tokenizers` library.

Every text part names its tokenizer file; the default one is a byte-level BPE, so any UTF-8 text has
ids. It knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codi.config import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

PAD, BEGIN, END = "<pad>", "<bos>", "<eos>"
SHIPPED = Path(__file__).parent / "presets"


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

    def kept(self, text: str, length: int) -> tuple[int, int]:
        """Return (tokens of `text` that fit in `length`, tokens it has)."""
        count = len(self.library.encode(text, add_special_tokens=False).ids)
        return min(count, length - 2), count


@lru_cache(maxsize=8)
def load_tokenizer(file: str) -> Tokenizer:
    """Load `file`: a path, or the name of one that ships with the package's presets.

    Raises:
        ConfigError: no such file.
    """
    from tokenizers import Tokenizer as Library

    for path in (Path(file), SHIPPED / file):
        if path.is_file():
            return Tokenizer(Library.from_file(str(path)))
    raise ConfigError(f"no tokenizer file {file!r}: give a path, or a name from {SHIPPED}")


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
