"""Tokens of OPTIMUS, with small vocabularies in the published formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codi.codecs.vocabularies import (
    BytePairs,
    WordPieces,
    load_byte_pairs,
    load_word_pieces,
    without_repetitions,
)
from codi.config import ConfigError
from tests.codecs.published import write_byte_pairs, write_word_pieces


@pytest.fixture
def word_pieces(tmp_path: Path) -> WordPieces:
    return load_word_pieces(str(write_word_pieces(tmp_path)))


@pytest.fixture
def byte_pairs(tmp_path: Path) -> BytePairs:
    folder, size = write_byte_pairs(tmp_path)
    return load_byte_pairs(str(folder), size + 3)


def test_words_are_lower_case_and_keep_their_accents(word_pieces: WordPieces) -> None:
    ids = word_pieces.encode(["A Cat, in Zürich"], 20)[0].tolist()
    tokens = [word_pieces.library.id_to_token(number) for number in ids]
    assert tokens == ["[CLS]", "a", "cat", ",", "in", "z", "##ü", "##rich", "[SEP]"]


def test_shorter_sentences_are_padded_and_longer_ones_cut(word_pieces: WordPieces) -> None:
    ids = word_pieces.encode(["a", "a cat , in a cat"], 5)
    assert ids.tolist()[0] == [word_pieces.begin, ids[0, 1], word_pieces.end, 0, 0]
    assert ids.shape == (2, 5)
    assert ids[1, -1] == word_pieces.end


def test_what_is_cut_off_a_sentence_is_told(word_pieces: WordPieces) -> None:
    assert word_pieces.unread(["a", "a cat , in a Cat"], 5) == [
        'the first 3 of 6 tokens are read, to "... a cat ,"'
    ]


def test_a_sentence_begins_with_a_space_between_begin_and_end(byte_pairs: BytePairs) -> None:
    ids = byte_pairs.encode(["A cat."], 20)[0].tolist()
    assert (ids[0], ids[-1]) == (byte_pairs.begin, byte_pairs.end)
    assert byte_pairs.library.id_to_token(ids[1]) == "ĠA"
    assert byte_pairs.decode(ids) == " <BOS> A cat. <EOS>"
    assert byte_pairs.sentence(ids) == "A cat."


def test_special_tokens_are_the_last_three(byte_pairs: BytePairs) -> None:
    size = byte_pairs.library.get_vocab_size()
    assert byte_pairs.special == {size: "<PAD>", size + 1: "<BOS>", size + 2: "<EOS>"}


@pytest.mark.parametrize("text", ["heavy rain; thunder!", "Zürich 2", "it's <EOS> here"])
def test_any_text_comes_back(byte_pairs: BytePairs, text: str) -> None:
    ids = byte_pairs.encode([text], 60)[0].tolist()
    assert ids.count(byte_pairs.end) == 1
    assert byte_pairs.sentence(ids) == text


def test_a_sentence_ends_at_its_end(byte_pairs: BytePairs) -> None:
    ids = byte_pairs.encode(["A cat.", "A cat. A cat."], 40)
    assert ids[0, -1] == byte_pairs.pad
    assert byte_pairs.sentence(ids[0].tolist()) == "A cat."
    nothing = [byte_pairs.begin, byte_pairs.end, byte_pairs.pad]
    assert byte_pairs.sentence(nothing) == ""


def test_spaces_before_punctuation_are_mended(byte_pairs: BytePairs) -> None:
    ids = byte_pairs.encode(["a cat , it 's here ."], 60)[0].tolist()
    assert byte_pairs.sentence(ids) == "a cat, it's here."


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("the the cat sat on on the mat", "the cat sat on the mat"),
        ("a b c a b c d", "a b c d"),
        ("a a a a", "a"),
        ("one two three", "one two three"),
        ("", ""),
    ],
)
def test_repetitions_are_removed(given: str, expected: str) -> None:
    assert without_repetitions(given) == expected
    assert without_repetitions(expected) == expected


def test_a_tokenizer_of_one_file_is_the_same(tmp_path: Path, byte_pairs: BytePairs) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    byte_pairs.library.save(str(folder / "tokenizer.json"))
    size = byte_pairs.library.get_vocab_size() + 3
    again = load_byte_pairs(str(folder), size)
    assert again.encode(["A cat."], 9).tolist() == byte_pairs.encode(["A cat."], 9).tolist()


def test_a_vocabulary_that_is_too_small_is_refused(tmp_path: Path) -> None:
    folder, size = write_byte_pairs(tmp_path)
    with pytest.raises(ConfigError, match=f"set it to {size + 3}"):
        load_byte_pairs(str(folder), size + 2)


def test_missing_files_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it has neither\); give a folder that holds tokenizer"):
        load_word_pieces(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"cannot load a tokenizer from"):
        load_byte_pairs(str(tmp_path), 50_260)


def test_another_vocabulary_than_berts_is_refused(tmp_path: Path) -> None:
    folder = write_word_pieces(tmp_path)
    tokens = (folder / "vocab.txt").read_text().replace("[CLS]", "[BEGIN]")
    (folder / "vocab.txt").write_text(tokens)
    with pytest.raises(ConfigError, match=r"no token '\[CLS\]'"):
        load_word_pieces(str(folder))


def test_the_published_formats_are_what_is_written(tmp_path: Path) -> None:
    folder, size = write_byte_pairs(tmp_path)
    assert len(json.loads((folder / "vocab.json").read_text(encoding="utf-8"))) == size
