"""Laws of the options of `codi generate`: order, weights, contradictions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codi.cli import build_parser
from codi.cli.request import Prompt, Request, read_request
from codi.config import ConfigError
from codi.modalities import base
from codi.modalities.base import Modality, names


def request(*words: str) -> Request:
    return read_request(build_parser().parse_args(["generate", *words]))


def test_conditions_keep_the_order_of_the_command_line_across_options() -> None:
    asked = request(
        *("--audio", "a.wav", "--text", "one", "--image", "i.png", "--text", "two"),
        *("--to", "video", "--weights", "1", "2", "3", "4"),
    )
    assert asked.conditions == (
        Prompt("audio", Path("a.wav")),
        Prompt("text", "one"),
        Prompt("image", Path("i.png")),
        Prompt("text", "two"),
    )
    assert asked.weights == pytest.approx((0.4, 0.8, 1.2, 1.6))


def test_weights_may_stand_between_conditions_and_negatives_do_not_count() -> None:
    asked = request(
        *(
            "--text",
            "one",
            "--weights",
            "3",
            "--negative-text",
            "dark",
            "--negative-image",
            "b.png",
        ),
        *("--image", "i.png", "--weights", "1", "--to", "text"),
    )
    assert [prompt.modality for prompt in asked.conditions] == ["text", "image"]
    assert asked.weights == pytest.approx((1.5, 0.5))
    assert asked.negative == (Prompt("text", "dark"), Prompt("image", Path("b.png")))


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.floats(0.1, 50))
def test_only_the_ratios_of_weights_matter(weights: list[float], factor: float) -> None:
    conditions = [word for _ in weights for word in ("--text", "x")]

    def read(values: list[float]) -> tuple[float, ...]:
        return request(*conditions, "--to", "image", "--weights", *map(str, values)).weights

    once, scaled = read(weights), read([factor * weight for weight in weights])
    assert once == pytest.approx(scaled)
    assert sum(once) == pytest.approx(len(weights))
    assert read([1.0] * len(weights)) == request(*conditions, "--to", "image").weights


def test_outputs_are_folded_and_samples_have_consecutive_seeds() -> None:
    asked = request("--text", "x", "--to", "audio", "image", "audio", "--num", "3", "--seed", "7")
    assert asked.to == ("audio", "image")
    assert asked.seeds == (7, 8, 9)
    assert asked.guidance is None


def test_guidance_is_one_number_or_one_for_each_modality() -> None:
    basis = ("--text", "x", "--to", "audio", "image")
    assert request(*basis, "--guidance", "2.5").guidance == 2.5
    assert request(*basis, "--guidance", "image=3", "audio=2").guidance == {"image": 3, "audio": 2}


def test_a_kept_stream_needs_no_other_condition_and_words_are_kept_literally() -> None:
    asked = request("--keep", "video=a=b.mp4", "--keep", "text=a ball", "--to", "audio")
    assert asked.conditions == ()
    assert asked.keep == {"video": Path("a=b.mp4"), "text": "a ball"}


def test_kept_words_are_read_from_a_file_where_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("a ball")
    assert request("--keep", f"text={file}", "--to", "audio").keep == {"text": file}
    many = "a ball " * 2000
    assert request("--keep", f"text={many}", "--to", "audio").keep == {"text": many}


@pytest.mark.parametrize("words", ["nosuch.txt", "my/notes", "notes.markdown"])
def test_a_kept_file_that_is_not_there_is_no_words(words: str) -> None:
    with pytest.raises(ConfigError) as error:
        request("--keep", f"text={words}", "--to", "audio")
    assert f"--keep text={words}: no such file" in str(error.value)
    assert str(error.value).endswith(f'put a space behind them: --keep "text={words} "')
    assert request("--keep", f"text={words} ", "--to", "audio").keep == {"text": f"{words} "}


@pytest.mark.parametrize("words", ["ball", "2.5", "stop.", "a ball in my/notes.txt"])
def test_kept_words_that_look_like_no_file_are_words(words: str) -> None:
    assert request("--keep", f"text={words}", "--to", "audio").keep == {"text": words}


def test_weights_may_be_larger_together_than_any_number() -> None:
    asked = request(*X, *X, "--to", "image", "--weights", "1e308", "1e308")
    assert asked.weights == (1.0, 1.0)


def test_a_registered_modality_has_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Modality("depth", "a map of distances", "png", "codi.modalities.image:ImageMedia")
    known = dict.fromkeys(names())
    monkeypatch.setitem(base._REGISTRY, "depth", entry)
    asked = request("--depth", "d.png", "--negative-depth", "e.png", "--to", "image", "depth")
    assert asked.conditions == (Prompt("depth", Path("d.png")),)
    assert asked.negative == (Prompt("depth", Path("e.png")),)
    assert asked.to == ("image", "depth")
    assert "depth" not in known


X = ("--text", "x")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--to", "image"), ["no condition", "--text", "--unconditional", "--keep"]),
        (X, ["nothing to make", "--to"]),
        ((*X, "--to", "vidio"), ["unknown modality 'vidio'", "did you mean 'video'"]),
        ((*X, "--to", "image", "--num", "100000000"), ["--num 100000000: at most 100000"]),
        (
            ("--keep", "video=v.mp4", *X, "--to", "audio", "--weights", "1", "2"),
            ["expected 1 number", "what is kept takes their mean"],
        ),
        ((*X, "--to", "image,video"), ["put spaces between them: --to image video"]),
        ((*X, "--to", "image, audio"), ["put spaces between them: --to image audio"]),
        (("--image", "", "--to", "text"), ["--image", "the name is empty"]),
        ((*X, "--to", "image", "--out", ""), ["--out", "the name is empty"]),
        ((*X, "--to", "image", "--weights", "1", "2"), ["expected 1 number", "text", "got 2"]),
        ((*X, *X, "--to", "image", "--weights", "1"), ["expected 2 number", "got 1"]),
        ((*X, "--to", "image", "--weights", "-1"), ["not negative"]),
        ((*X, "--to", "image", "--weights", "nan"), ["not negative"]),
        ((*X, "--to", "image", "--weights", "inf"), ["not negative"]),
        ((*X, *X, "--to", "image", "--weights", "0", "0"), ["at least one number above 0"]),
        (("--unconditional", "--to", "image", "--weights", "1"), ["--weights without conditions"]),
        (("--unconditional", *X, "--to", "image"), ["--unconditional contradicts --text"]),
        (
            ("--unconditional", "--keep", "video=v.mp4", "--to", "image"),
            ["--unconditional contradicts --keep video"],
        ),
        (("--keep", "video=v.mp4", "--to", "video"), ["video is both in --to and in --keep"]),
        (("--keep", "video", "--to", "audio"), ["MODALITY=FILE", "video=silent.mp4"]),
        (("--keep", "movie=v.mp4", "--to", "audio"), ["unknown modality 'movie'"]),
        (("--keep", "video=a", "--keep", "video=b", "--to", "audio"), ["given twice"]),
        ((*X, "--to", "image", "--guidance", "much"), ["expected one number"]),
        ((*X, "--to", "image", "--guidance", "1", "2"), ["expected one number"]),
        ((*X, "--to", "image", "--guidance", "image=nan"), ["expected one number"]),
        ((*X, "--to", "image", "--guidance", "audio=2"), ["unknown modality to guide", "image"]),
    ],
)
def test_a_contradiction_is_an_error_with_the_mend(
    words: tuple[str, ...], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        request(*words)
    for part in parts:
        assert part in str(error.value)
