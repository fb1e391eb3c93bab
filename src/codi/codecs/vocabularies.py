"""BERT's and GPT-2's tokens for OPTIMUS, and its last touch to sentences.

Vocabularies are read from a folder of the published files, or by a name of the hub, when the first
sentence needs them. It knows no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codi.config import ConfigError
from codi.hub import announce
from codi.tokenizer import cut_lines

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

SPECIAL = ("<PAD>", "<BOS>", "<EOS>")
"""What OPTIMUS adds to GPT-2's vocabulary, in the order of their ids."""

CLEAN = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
"""How the tokenizers of that time mended the spaces of English, in their order."""


class WordPieces:
    """BERT's tokens of lower-cased sentences; the vocabulary itself is cased, as in OPTIMUS."""

    def __init__(self, library: Library) -> None:
        self.library = library
        library.encode_special_tokens = True
        self.pad, self.begin, self.end = (
            _id(library, token) for token in ("[PAD]", "[CLS]", "[SEP]")
        )

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Return ids (B, L), each `[CLS] ... [SEP]` cut to `length` and padded to the longest."""
        return padded(
            (
                [self.begin, *encoding.ids[: length - 2], self.end]
                for encoding in self.library.encode_batch(
                    [text.lower() for text in texts], add_special_tokens=False
                )
            ),
            self.pad,
        )

    def unread(self, texts: Sequence[str], length: int) -> list[str]:
        """Return a line for each text that `encode` cuts: how much of it is read, and to where."""
        return cut_lines(
            texts,
            length - 2,
            lambda text: self.library.encode(text.lower(), add_special_tokens=False).ids,
            self.library.decode,
        )


class BytePairs:
    """GPT-2's tokens, and the three that OPTIMUS adds at the end of a vocabulary of `size`."""

    def __init__(self, library: Library, size: int) -> None:
        self.library = library
        library.encode_special_tokens = True
        self.special = dict(zip(range(size - len(SPECIAL), size), SPECIAL, strict=True))
        self.pad, self.begin, self.end = self.special
        found = library.get_vocab_size()
        if found > self.pad:
            raise ConfigError(
                f"decoder_tokenizer has {found} tokens, and decoder_vocabulary = {size} holds "
                f"{self.pad} beside {', '.join(SPECIAL)}; set it to {found + len(SPECIAL)}"
            )

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Return ids (B, L), each `<BOS> ... <EOS>` cut to `length` and padded to the longest.

        A space stands before the first word, as before every other.
        """
        return padded(
            (
                [self.begin, *encoding.ids[: length - 2], self.end]
                for encoding in self.library.encode_batch(
                    [f" {text}" for text in texts], add_special_tokens=False
                )
            ),
            self.pad,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens spelled out after a space, spaces mended.

        The ids of "<BOS> A cat." become " <BOS> A cat.".
        """
        pieces: list[str] = []
        ordinary: list[int] = []
        for number in (*ids, None):
            if number is not None and number not in self.special:
                ordinary.append(number)
                continue
            if ordinary:
                pieces.append(self.library.decode(ordinary, skip_special_tokens=False))
                ordinary = []
            if number is not None:
                pieces.append(f" {self.special[number]}")
        text = "".join(pieces)
        for spaced, clean in CLEAN:
            text = text.replace(spaced, clean)
        return text

    def sentence(self, ids: Sequence[int]) -> str:
        """Return the words between the first and the last, `<BOS>` and `<EOS>`, of written ids."""
        kept = list(ids)
        if self.end in kept:
            kept = kept[: kept.index(self.end) + 1]
        return " ".join(self.decode(kept).split()[1:-1])


def padded(rows: Iterable[list[int]], pad: int) -> Tensor:
    """Return rows of ids as (B, L), padded to the longest."""
    listed = list(rows)
    longest = max(len(row) for row in listed)
    return torch.tensor([row + [pad] * (longest - len(row)) for row in listed])


def without_repetitions(text: str) -> str:
    """Remove words and phrases that directly repeat what stands before them.

    The released CoDi does so to every caption: single words first, then longer and longer phrases.

    >>> without_repetitions("a dog a dog runs")
    'a dog runs'
    """
    words = text.split()
    length = 1
    while 2 * length <= len(words):
        at = 0
        while at + 2 * length <= len(words):
            if words[at : at + length] == words[at + length : at + 2 * length]:
                del words[at + length : at + 2 * length]
                at = 0
            else:
                at += 1
        length += 1
    return " ".join(words)


@lru_cache(maxsize=4)
def load_word_pieces(source: str) -> WordPieces:
    """Load BERT's tokenizer from a folder (tokenizer.json or vocab.txt) or by a name of the hub.

    Raises:
        ConfigError: no such files.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    def from_lists(folder: Path) -> Library:
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        numbers = {word: number for number, word in enumerate(words)}
        library = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
        library.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return library

    return WordPieces(_load(source, ("vocab.txt",), from_lists))


@lru_cache(maxsize=4)
def load_byte_pairs(source: str, size: int) -> BytePairs:
    """Load GPT-2's tokenizer, from tokenizer.json or vocab.json and merges.txt or the hub.

    Raises:
        ConfigError: no such files, or more tokens than a vocabulary of `size` holds.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    def from_lists(folder: Path) -> Library:
        files = (str(folder / name) for name in ("vocab.json", "merges.txt"))
        library = Tokenizer(models.BPE.from_file(*files))
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        return library

    return BytePairs(_load(source, ("vocab.json", "merges.txt"), from_lists), size)


def _load(source: str, lists: Sequence[str], from_lists: Callable[[Path], Library]) -> Library:
    from tokenizers import Tokenizer

    folder = Path(source)
    try:
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        if all((folder / name).is_file() for name in lists):
            return from_lists(folder)
        if not folder.is_dir():
            announce(source)
            return Tokenizer.from_pretrained(source)
        reason = "it has neither"
    except Exception as error:  # the library raises nothing more special
        reason = str(error).strip().partition("\n")[0]
    raise ConfigError(
        f"cannot load a tokenizer from {source!r} ({reason}); give a folder that holds "
        f"tokenizer.json or {' and '.join(lists)}, or a name of the hub where there is a network"
    )


def _id(library: Library, token: str) -> int:
    number = library.token_to_id(token)
    if number is None:
        raise ConfigError(f"the encoder's tokenizer has no token {token!r}; give BERT's")
    return int(number)
