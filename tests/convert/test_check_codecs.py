"""The goldens of codecs, and what is said of those that cannot be run."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codi.codecs.vocabularies import load_byte_pairs, load_word_pieces
from codi.config import ConfigError
from codi.convert import codecs
from codi.convert.check_codecs import (
    CHECKS,
    released_autoencoder,
    released_optimus,
    released_vocoder,
)
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
    ("key", "wrong", "failed", "message"),
    [
        (
            "remove_duplicate_word",
            [["a a", "a a"], ["b", "c"]],
            "remove_duplicate_word",
            "without repetitions, 'a a': expected 'a a', got 'a'; .* 'b': expected 'c', got 'b'",
        ),
        ("bert", [{"text": "a", "ids": [2, 3]}], "bert", r"BERT's ids of 'a': expected \[2, 3\]"),
        ("special", {"<PAD>": 7}, "gpt2", "set it to|ids of special tokens"),
        ("bert_special", {"[CLS]": 7}, "bert", "BERT's ids of special tokens: expected"),
        ("encode(<BOS>)", [7], "gpt2", r"GPT-2's ids of '<BOS>': expected \[7\]"),
    ],
)
def test_a_case_that_differs_fails_alone(
    tmp_path: Path, key: str, wrong: object, failed: str, message: str
) -> None:
    lines = list(verify(_golden(tmp_path, _cases(tmp_path) | {key: wrong}), CHECKS))
    assert {line.tensor: line.verdict for line in lines} == dict.fromkeys(
        ("remove_duplicate_word", "bert", "gpt2"), "pass"
    ) | {failed: "fail"}
    [note] = [line.note for line in lines if line.note]
    assert re.search(message, note)
    assert max(line.exit_code for line in lines) == 1


@pytest.mark.parametrize("key", ["remove_duplicate_word", "bert", "gpt2"])
def test_cases_of_one_tokenizer_are_compared_alone(tmp_path: Path, key: str) -> None:
    cases = _cases(tmp_path)
    about = {k: v for k, v in cases.items() if k in (key, "special")}
    assert _check(golden := _golden(tmp_path, about)).run(golden) == {key: Words()}


# --- other sizes and switches ---


def _without(golden: Golden, *starts: str) -> Golden:
    for key in [key for key in golden.tensors if key.startswith(starts)]:
        del golden.tensors[key]
    return golden


def _verdicts(golden: Golden) -> dict[str, str]:
    return {line.tensor: line.verdict for line in verify(golden, CHECKS)}


@needs_goldens
def test_an_autoencoder_may_have_more_channels_in_its_latent_than_before_it(tmp_path: Path) -> None:
    """What is done to the two 1 x 1 convolutions can be done to what comes out of them."""
    golden = _copy(tmp_path, "f_autokl")
    golden.about["config"]["embed_dim"] = 5
    mixing, added = torch.randn(10, 8), torch.randn(2, 1, *golden["z"].shape[2:])
    tensors = golden.tensors
    for name in ("w.quant_conv.weight", "w.quant_conv.bias"):
        tensors[name] = torch.einsum("ij,j...->i...", mixing, tensors[name].float())
    tensors["w.post_quant_conv.weight"] = torch.cat(
        [tensors["w.post_quant_conv.weight"].float(), torch.zeros(4, 1, 1, 1)], dim=1
    )
    tensors["z"] = torch.cat([tensors["z"], added], dim=1)
    moments = torch.cat([tensors["out_mean"], tensors["out_logvar"]], dim=1)
    assert moments[:, 4:].abs().max() < 20.0  # where they are cut is not mixed
    mean, log_variance = torch.einsum("ij,bjhw->bihw", mixing, moments).chunk(2, dim=1)
    tensors |= {"out_mean": mean, "out_logvar": log_variance.clamp(-30.0, 20.0)}
    assert _verdicts(golden) == dict.fromkeys(("out_mean", "out_logvar", "out_dec"), "pass")


@needs_goldens
@pytest.mark.parametrize(("key", "value"), [("double_z", False), ("out_ch", 1)])
def test_an_autoencoder_of_another_kind_is_named(tmp_path: Path, key: str, value: object) -> None:
    golden = _copy(tmp_path, "f_autokl")
    golden.about["config"]["ddconfig"][key] = value
    with pytest.raises(ConfigError, match=rf"ddconfig\.{key} = {re.escape(str(value))}; the auto"):
        _check(golden).run(golden)


@needs_goldens
def test_an_autoencoder_may_be_given_clips(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "f_autokl")
    for name in ("x", "z", "out_mean", "out_logvar", "out_dec"):
        golden.tensors[name] = torch.stack([golden.tensors[name]] * 2, dim=2)
    assert _verdicts(golden) == dict.fromkeys(("out_mean", "out_logvar", "out_dec"), "pass")


@needs_goldens
def test_an_autoencoder_may_attend_at_some_resolutions(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "f_autokl")
    golden.about["config"]["ddconfig"]["attn_resolutions"] = [16, 8]
    assert released_autoencoder(golden.about).attention_levels == (1, 2)
    missing = re.escape("no weight for encoder.4.norm.weight")  # this one does not attend
    with pytest.raises(ConfigError, match=missing):
        _check(golden).run(golden)


@needs_goldens
def test_a_vocoders_kernels_may_have_dilations_of_their_own(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "g_audio_vae_vocoder")
    assert released_vocoder(golden.about["hifigan"]).dilations_by_kernel == ((1, 3, 5),) * 3
    golden.about["hifigan"]["resblock_dilation_sizes"][2] = [1, 3, 7]
    assert released_vocoder(golden.about["hifigan"]).dilations_by_kernel[2] == (1, 3, 7)
    assert _verdicts(golden)["out_wave"] == "fail"  # they are read: these are not the golden's
    golden.about["hifigan"]["resblock"] = "3"
    with pytest.raises(ConfigError, match=r"hifigan\.resblock = '3'; the vocoder here has 1, 2"):
        _check(golden).run(golden)


@needs_goldens
def test_a_spectrogram_is_cut_as_the_latents_say_where_it_is_not_kept(tmp_path: Path) -> None:
    golden = _without(_copy(tmp_path, "g_audio_vae_vocoder"), "out_fbank")
    assert _verdicts(golden)["out_mean"] == "pass"


@needs_goldens
def test_the_halves_of_optimus_may_have_sizes_of_their_own(tmp_path: Path) -> None:
    """The encoder stays the golden's; ours of another width is run beside it."""
    golden = _without(_copy(tmp_path, "h_optimus"), "w.decoder", "out_greedy", "out_logits")
    golden.about["decoder_config"].update(n_embd=24, n_head=2)
    codec = replace(released_optimus(golden.about), writing="greedy", length=9).build().eval()
    assert codec.decoder.layers[0].heads == 2
    table = codecs.optimus(codec.config)
    own = {name: 3.0 * value for name, value in codec.state_dict().items()}
    codec.load_state_dict(own)
    for name in own:
        foreign = table.foreign(name)
        assert foreign is not None
        if foreign[0].startswith("decoder."):
            golden.tensors[f"w.{foreign[0]}"] = table.to_foreign(foreign[0], own)
    with torch.no_grad():
        ids = codec.write(golden["z"])
        golden.tensors["out_greedy_1"] = ids[1]
        golden.tensors["out_logits_1"] = codec.logits(golden["z"][1:], ids[1:])
    passing = {*ENCODED, "out_greedy_1", "out_logits_1"}
    assert {name for name, verdict in _verdicts(golden).items() if verdict == "pass"} == passing


ENCODED = {"out_seq", "out_pooled", "out_mu", "out_logvar"}


@needs_goldens
@pytest.mark.parametrize(
    ("without", "made"),
    [
        (("out_greedy", "out_logits"), set()),
        (("out_greedy_0", "out_logits_0"), {"out_greedy_1", "out_logits_1"}),
        (("out_greedy",), {"out_logits_0", "out_logits_1"}),
        (("out_logits",), {"out_greedy_0", "out_greedy_1"}),
    ],
)
def test_of_some_latents_nothing_may_be_expected(
    without: tuple[str, ...], made: set[str], tmp_path: Path
) -> None:
    found = _verdicts(_without(_copy(tmp_path, "h_optimus"), *without))
    assert {name for name, verdict in found.items() if verdict == "pass"} == made | ENCODED
    assert set(found.values()) <= {"pass", "not checked"}
