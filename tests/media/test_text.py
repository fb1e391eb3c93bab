from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codi.media import MediaError, load_text, save_text
from codi.media.text import MAX_BYTES


def test_text_is_itself() -> None:
    assert load_text("a red ball bounces") == ("a red ball bounces", [])


def test_a_path_object_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes("\ufeffa glass ball\r\n\tfalls  \n".encode())
    text, notes = load_text(path)
    assert text == "a glass ball falls"
    assert notes == ["prompt.txt: white space collapsed"]


def test_a_path_object_is_a_file_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("hello\n", encoding="utf-8")
    assert load_text(tmp_path / "README") == ("hello", [])


@pytest.mark.parametrize("words", ["a dog", "readme.txt", "see readme.txt", "NOTES.TXT"])
def test_a_string_is_a_prompt_whatever_files_there_are(tmp_cwd: Path, words: str) -> None:
    assert load_text(words) == (words, [])
    (tmp_cwd / words).write_text("not this", encoding="utf-8")
    assert load_text(words) == (words, [])


def test_letters_are_composed() -> None:
    assert load_text("cafe\u0301") == ("caf\u00e9", ["text: normalised to Unicode NFC"])


def test_white_space_of_every_kind() -> None:
    text, notes = load_text("  a\u00a0red\n\n\u2003ball\t")
    assert text == "a red ball"
    assert notes == ["text: white space collapsed"]


@settings(deadline=None)  # other work shares the machine
@given(st.text())
def test_any_string_is_tidied_once_or_refused(text: str) -> None:
    try:
        tidy, _ = load_text(text)
    except MediaError as error:
        line = str(error)
    else:
        assert load_text(tidy) == (tidy, [])
        line = ""
    assert "\n" not in line


@pytest.mark.parametrize("empty", ["", "   ", "\n\t", "\u200b", "\ufeff"])
def test_empty(empty: str) -> None:
    with pytest.raises(MediaError, match="text: the text is empty; write a few words"):
        load_text(empty)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\0b", r"text: character 2 is the control character U\+0000; remove it"),
        ("a\x1b[31mred", r"U\+001B"),
        ("ab\udcff", "text: character 3 is not valid UTF-8"),
    ],
)
def test_what_is_no_text(text: str, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        load_text(text)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"caf\xe9 au lait", "byte 0xe9 at position 3 is not UTF-8; save it with the encoding"),
        (b"\xef\xbb\xbfcaf\xe9 au lait", "byte 0xe9 at position 6 is not UTF-8"),
        ("hello".encode("utf-16"), "is UTF-16 text, not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(40), "is a PNG picture, .*; use --image"),
        (b"", "is empty"),
        (b"\n\n", "the text is empty"),
    ],
)
def test_files_that_are_no_prompt(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=rf"prompt\.txt: {words}"):
        load_text(path)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("word " * 300_000, "word " * 200_000),
        ("a" + "\u00fc" * 600_000, "a" + "\u00fc" * 499_999),  # the cut goes through a character
        ("a" * 1_000_000 + "\0" * 9, "a" * 1_000_000),  # what is not read is not judged
    ],
)
def test_a_long_file_is_read_from_its_beginning(tmp_path: Path, text: str, kept: str) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text(text, encoding="utf-8")
    read, notes = load_text(path)
    assert read == kept.strip()
    cut = f"prompt.txt: used the first 1,000,000 of {path.stat().st_size:,} bytes"
    assert [note.removesuffix(", white space collapsed") for note in notes] == [cut]


def test_a_text_as_long_as_what_is_read_is_whole(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"x" * MAX_BYTES)
    assert load_text(tmp_path / "prompt.txt") == ("x" * MAX_BYTES, [])


def test_missing_file_is_no_prompt() -> None:
    with pytest.raises(MediaError, match=r"missing\.txt: no such file; check the path"):
        load_text(Path("missing.txt"))


def test_round_trip(tmp_path: Path) -> None:
    save_text(tmp_path / "out.txt", "ein grüner Würfel")
    assert (tmp_path / "out.txt").read_bytes() == "ein grüner Würfel\n".encode()
    assert load_text(tmp_path / "out.txt") == ("ein grüner Würfel", [])
    with pytest.raises(MediaError, match="half a character"):
        save_text(tmp_path / "bad.txt", "ab\ud800")
    assert not (tmp_path / "bad.txt").exists()


@pytest.mark.parametrize("wrong", [3, None, b"red"])
def test_what_is_no_text_is_named(wrong: object) -> None:
    with pytest.raises(MediaError, match=f"is of type {type(wrong).__name__}; give a string"):
        load_text(wrong)  # type: ignore[arg-type]
