"""The goldens of codecs, and what is said of those that cannot be run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codi.codecs.vocabularies import load_byte_pairs, load_word_pieces
from codi.config import ConfigError
from codi.convert.check_codecs import CHECKS
from codi.convert.golden import Check, Golden, Words
from codi.convert.verifying import verify
from tests.codecs.published import write_byte_pairs, write_word_pieces
from tests.released import GOLDENS, needs_goldens

NAMES = ("f_autokl", "g_audio_vae_vocoder", "h_optimus", "h_tokenizers")


def _check(golden: Golden) -> Check:
    [check] = [check for check in CHECKS if check.recognises(golden.about)]
    return check


def _copy(tmp_path: Path, name: str, drop: str | None = None) -> Golden:
    """Return a copy of a golden, without the tensors whose names end with `drop`."""
    for path in GOLDENS.glob(f"{name}.*"):
        shutil.copyfile(path, tmp_path / path.name)
    if drop is not None:
        path = tmp_path / f"{name}.safetensors"
        kept = {key: value for key, value in load_file(path).items() if not key.endswith(drop)}
        save_file(kept, path)
    return Golden(tmp_path / f"{name}.json")


@needs_goldens
@pytest.mark.parametrize("name", NAMES)
def test_the_goldens_are_met(name: str) -> None:
    golden = Golden(GOLDENS / f"{name}.json")
    check = _check(golden)
    found = check.run(golden)
    assert set(found) >= {key for key in golden.tensors if key.startswith("out")}
    for key, ours in found.items():
        if isinstance(ours, Words):
            assert ours.unchecked or key == "remove_duplicate_word"
            continue
        expected = golden[key]
        assert ours.shape == expected.shape
        error = (ours.double() - expected.double()).abs().max()
        assert error <= check.tolerance * expected.double().std(), key


@needs_goldens
@pytest.mark.parametrize("path", sorted(GOLDENS.glob("*.json")), ids=lambda path: path.stem)
def test_only_goldens_of_codecs_are_recognised(path: Path) -> None:
    found = [check for check in CHECKS if check.recognises(Golden(path).about)]
    assert len(found) == (path.stem in NAMES)


@needs_goldens
def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "f_autokl", drop="w.decoder.conv_out.bias")
    with pytest.raises(ConfigError, match=r"f_autokl.json: its weights do not fit"):
        _check(golden).run(golden)


@needs_goldens
def test_a_weight_that_nothing_knows_is_named(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "f_autokl")
    golden.tensors["w.encoder.strange"] = torch.zeros(1)
    with pytest.raises(ConfigError, match=r"no rule for the weight 'encoder.strange'"):
        _check(golden).run(golden)


@needs_goldens
def test_weights_that_are_lacking_are_not_guessed(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "h_optimus")
    golden.tensors["w.decoder.transformer.ln_f.bias"] += 0.1  # not what the seed gives
    with pytest.raises(ConfigError, match=r"lacks the weight .*h\.0\.attn\.c_attn\.bias"):
        _check(golden).run(golden)


def _cases(tmp_path: Path) -> dict[str, object]:
    """Write small vocabularies beside a golden and return cases that they meet."""
    pieces = load_word_pieces(str(write_word_pieces(tmp_path).rename(tmp_path / "bert-base-cased")))
    folder, size = write_byte_pairs(tmp_path)
    pairs = load_byte_pairs(str(folder), size + 3)
    text = "A cat in Zürich."
    ids = pairs.encode([text], 99)[0].tolist()
    return {
        "remove_duplicate_word": [["a dog a dog", "a dog"]],
        "bert": [{"text": text, "ids": pieces.encode([text], 99)[0].tolist()}],
        "gpt2": [{"text": f"<BOS> {text} <EOS>", "ids": ids, "decoded": f" <BOS> {text} <EOS>"}],
        "special": {token: number for number, token in pairs.special.items()},
    }


def _golden(tmp_path: Path, about: dict[str, object]) -> Golden:
    path = tmp_path / "tokenizers.json"
    path.write_text(json.dumps(about), encoding="utf-8")
    return Golden(path)


def test_cases_of_tokenizers_are_compared_where_there_are_vocabularies(tmp_path: Path) -> None:
    golden = _golden(tmp_path, _cases(tmp_path))
    keys = ("remove_duplicate_word", "bert", "gpt2")
    assert _check(golden).run(golden) == dict.fromkeys(keys, Words())
    (tmp_path / "gpt2").rename(tmp_path / "elsewhere")
    found = _check(golden).run(golden)
    assert found["bert"] == Words()
    assert found["gpt2"] == Words(f"needs GPT-2's vocab.json and merges.txt in {tmp_path / 'gpt2'}")


@needs_goldens
@pytest.mark.parametrize(
    ("name", "without", "made"),
    [
        ("f_autokl", ("z", "out_dec", "w.decoder.", "w.post_quant"), {"out_mean", "out_logvar"}),
        ("f_autokl", ("x", "out_mean", "out_logvar", "w.encoder.", "w.quant"), {"out_dec"}),
        (
            "g_audio_vae_vocoder",
            ("z", "out_mel", "out_wave", "w.decoder.", "w.post_quant", "w.vocoder."),
            {"mel_basis", "out_fbank", "out_mean", "out_logvar"},
        ),
        (
            "h_optimus",
            ("z", "out_greedy", "out_logits", "w.decoder."),
            {"out_seq", "out_pooled", "out_mu", "out_logvar"},
        ),
    ],
)
def test_one_half_of_a_codec_is_checked_alone(
    name: str, without: tuple[str, ...], made: set[str], tmp_path: Path
) -> None:
    golden = _copy(tmp_path, name)
    for key in [key for key in golden.tensors if key.startswith(without)]:
        del golden.tensors[key]
    lines = list(verify(golden, CHECKS))
    assert {line.tensor for line in lines if line.verdict == "pass"} == made
    assert {line.verdict for line in lines} == {"pass", "not checked"}


@pytest.mark.parametrize(
    ("key", "wrong", "message"),
    [
        ("remove_duplicate_word", [["a a", "a a"]], "without repetitions, 'a a': expected 'a a'"),
        ("bert", [{"text": "a", "ids": [2, 3]}], r"BERT's ids of 'a': expected \[2, 3\]"),
        ("special", {"<PAD>": 7}, "set it to|ids of special tokens"),
        ("bert_special", {"[CLS]": 7}, "BERT's ids of special tokens: expected"),
        ("encode(<BOS>)", [7], r"GPT-2's ids of '<BOS>': expected \[7\]"),
    ],
)
def test_a_case_that_differs_is_named(
    tmp_path: Path, key: str, wrong: object, message: str
) -> None:
    golden = _golden(tmp_path, _cases(tmp_path) | {key: wrong})
    with pytest.raises(ConfigError, match=message):
        _check(golden).run(golden)
