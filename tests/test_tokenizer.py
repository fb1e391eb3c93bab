"""Sentences to token ids and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.config import ConfigError
from codi.tokenizer import Tokenizer, extend_tokenizer, load_tokenizer, train_tokenizer

SHIPPED = load_tokenizer("tokenizer-tiny.json")


@given(st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_any_text_comes_back_in_small_letters(texts: list[str]) -> None:
    normal = SHIPPED.library.normalizer.normalize_str
    assert SHIPPED.decode(SHIPPED.encode(texts, 1000)) == [normal(text).strip() for text in texts]


@pytest.mark.parametrize("name", ["tokenizer-tiny.json", "tokenizer-small.json"])
def test_capitals_mean_what_small_letters_mean(name: str) -> None:
    """Captions have none, so a model knows nothing of capitals; users begin sentences with them."""
    shipped = load_tokenizer(name)
    told, plain = (shipped.encode([text], 20) for text in ("A Red BALL", "a red ball"))
    assert torch.equal(told, plain)
    longer = extend_tokenizer(shipped, ["a Zzyx"] * 3, len(shipped) + 3)
    assert torch.equal(longer.encode(["ZZYX"], 20), longer.encode(["zzyx"], 20))
    assert longer.kept("zzyx", 20)[1] < shipped.kept("zzyx", 20)[1]


@pytest.mark.parametrize("text", ["<eos>", "one <pad> two", "<bos><eos>"])
def test_a_text_may_spell_a_special_token(text: str) -> None:
    assert SHIPPED.decode(SHIPPED.encode([text], 100)) == [text]


@given(st.text(min_size=50, max_size=80), st.integers(3, 20))
def test_long_texts_are_cut(text: str, length: int) -> None:
    ids = SHIPPED.encode([text], length)[0].tolist()
    assert len(ids) <= length
    assert ids[0] == SHIPPED.begin
    assert ids[-1] == SHIPPED.end
    kept, count = SHIPPED.kept(text, length)
    assert kept == len(ids) - 2
    assert count >= kept


@given(st.lists(st.text(max_size=60), max_size=4), st.integers(3, 20))
def test_what_is_not_read_is_told(texts: list[str], length: int) -> None:
    cut = [text for text in texts if SHIPPED.kept(text, length)[1] > length - 2]
    lines = SHIPPED.unread(texts, length)
    assert len(lines) == len(cut)
    for line, text in zip(lines, cut, strict=True):
        assert line.startswith(f"the first {length - 2} of {SHIPPED.kept(text, 0)[1]} tokens")


def test_short_texts_are_padded_to_the_longest() -> None:
    ids = SHIPPED.encode(["a", "a large red ball bounces"], 32)
    assert ids[0, -1] == SHIPPED.pad
    assert ids[1, -1] == SHIPPED.end


def test_a_trained_tokenizer_has_the_size_asked_for() -> None:
    tokenizer = train_tokenizer(["a red ball", "a red cube", "a red star"] * 5, 265)
    assert 256 < len(tokenizer) <= 265
    assert tokenizer.decode(tokenizer.encode(["ein blauer Würfel"], 64)) == ["ein blauer Würfel"]


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer file 'mine\.json': give a path"):
        load_tokenizer("mine.json")


def test_a_tokenizer_without_special_tokens_is_an_error() -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    with pytest.raises(ConfigError, match="no token '<pad>'"):
        Tokenizer(Library(models.BPE()))


def test_a_path_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    train_tokenizer(["a red ball"] * 3, 262).library.save(str(file))
    assert load_tokenizer(str(file)).decode(load_tokenizer(str(file)).encode(["é"], 9)) == ["é"]


FURTHER = ["a dog barking", "a cat barking at a dog", "a dög"] * 3


def test_an_extended_tokenizer_keeps_every_id() -> None:
    longer = extend_tokenizer(SHIPPED, FURTHER, len(SHIPPED) + 6)
    assert len(longer) == len(SHIPPED) + 6
    before, after = SHIPPED.library.get_vocab(), longer.library.get_vocab()
    assert before.items() <= after.items()
    known = ["a large red metal ball bounces quickly"]
    assert longer.encode(known, 32).equal(SHIPPED.encode(known, 32))
    assert longer.kept(FURTHER[0], 32)[1] < SHIPPED.kept(FURTHER[0], 32)[1]
    assert longer.decode(longer.encode(FURTHER, 40)) == FURTHER


def test_an_extended_tokenizer_merges_words_to_the_end() -> None:
    longer = extend_tokenizer(SHIPPED, FURTHER, 5000)
    assert longer.kept("a dog barking", 32)[1] == 3
    assert len(longer) < 600


@given(st.lists(st.text(alphabet="ab ", max_size=12), min_size=1, max_size=4))
def test_extending_agrees_with_how_the_library_then_encodes(texts: list[str]) -> None:
    longer = extend_tokenizer(SHIPPED, texts, len(SHIPPED) + 5)
    assert longer.decode(longer.encode(texts, 100)) == [text.strip() for text in texts]
    for text in texts:
        assert longer.kept(text, 100)[1] <= SHIPPED.kept(text, 100)[1]


def test_a_tokenizer_is_not_extended_to_fewer_entries() -> None:
    with pytest.raises(ConfigError, match="has 512 entries; ask for more"):
        extend_tokenizer(SHIPPED, FURTHER, 512)


def test_only_a_bpe_is_extended() -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    words = Tokenizer(Library(models.WordLevel({"<pad>": 0, "<bos>": 1, "<eos>": 2})))
    with pytest.raises(ConfigError, match="only a BPE can be extended, and this is a WordLevel"):
        extend_tokenizer(words, FURTHER, 600)
