"""The goldens of codecs, and what is said of those that cannot be run."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codi.audio import MelConfig, log_mel, mel_filters
from codi.codecs.vocabularies import load_byte_pairs, load_word_pieces
from codi.config import ConfigError
from codi.convert import codecs
from codi.convert.check_codecs import (
    CHECKS,
    released_autoencoder,
    released_front_ends,
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
    place = tmp_path / "gpt2"
    reason = f"needs GPT-2's vocab.json and merges.txt in {place}, or in another folder by --"
    assert found["gpt2"] == Words(f"{reason}tokenizers")


def test_vocabularies_may_lie_in_another_folder(tmp_path: Path) -> None:
    cases = _cases(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for name in ("bert-base-cased", "gpt2"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    golden = Golden(_golden(tmp_path, cases).path, tmp_path / "elsewhere")
    assert set(_check(golden).run(golden).values()) == {Words()}


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
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("double_z", False),
        ("out_ch", 1),
        ("resamp_with_conv", False),
        ("attn_type", "linear"),
        ("use_linear_attn", True),
        ("use_video_arch", True),
        ("give_pre_end", True),
        ("downsample_time_stride4_levels", [0]),
    ],
)
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


@needs_goldens
def test_the_decoder_may_end_with_a_hyperbolic_tangent(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "f_autokl")
    golden.about["config"]["ddconfig"]["tanh_out"] = True
    assert _verdicts(golden)["out_dec"] == "fail"
    golden.tensors["out_dec"] = golden.tensors["out_dec"].tanh()
    assert _verdicts(golden)["out_dec"] == "pass"
    audio = _copy(tmp_path, "g_audio_vae_vocoder")
    audio.about["config"]["ddconfig"]["tanh_out"] = True
    audio.tensors["out_mel"] = audio.tensors["out_mel"].tanh()
    assert _verdicts(audio)["out_mel"] == "pass"


@needs_goldens
def test_an_autoencoder_may_have_no_attention_at_all(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "f_autokl")
    golden.about["config"]["ddconfig"].update(attn_type="none", attn_resolutions=[16])
    config = released_autoencoder(golden.about)
    assert (config.middle_attention, config.attention_levels) == (False, ())
    codec = config.build().eval()
    for name in [name for name in golden.tensors if ".mid.attn_1." in name]:
        del golden.tensors[name]
    golden.filled(codec, codecs.autoencoder_kl(config), golden.weights())
    with torch.no_grad():
        golden.tensors["out_dec"] = codec.decode_raw(golden["z"][:, :, None])[:, :, 0]
    assert _verdicts(golden)["out_dec"] == "pass"
    del golden.about["config"]["ddconfig"]["ch_mult"]  # as the released constructor has it
    assert released_autoencoder(golden.about).multipliers == (1, 2, 4, 8)


@needs_goldens
@pytest.mark.parametrize(("side", "named"), [(25, "[1] and []"), (24, "[] and [1]")])
def test_halves_that_attend_on_different_levels_are_named(
    side: int, named: str, tmp_path: Path
) -> None:
    golden = _copy(tmp_path, "f_autokl")
    golden.about["config"]["ddconfig"].update(resolution=50, attn_resolutions=[side])
    with pytest.raises(
        ConfigError, match=rf"resolution = 50 makes .* {re.escape(named)}; .* 4 div"
    ):
        _check(golden).run(golden)


# --- sounds ---


def _with_vocoder(golden: Golden, **changes: object) -> None:
    """Give a golden another vocoder of random weights, and what it makes of the spectrograms."""
    golden.about["hifigan"].update(changes)
    config = released_vocoder(golden.about["hifigan"])
    vocoder, table = config.build().eval(), codecs.vocoder(config)
    _without(golden, "w.vocoder.")
    own = vocoder.state_dict()
    for name in own:
        foreign = table.foreign(name)
        assert foreign is not None
        golden.tensors[f"w.vocoder.{foreign[0]}"] = table.to_foreign(foreign[0], own)
    with torch.no_grad():
        golden.tensors["out_wave"] = vocoder(golden["out_mel"])[:, None]


HEARD = ("mel_basis", "out_fbank", "out_mean", "out_logvar", "out_mel", "out_wave")


@needs_goldens
@pytest.mark.parametrize(
    "changes",
    [
        {"upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4]},
        {"upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4], "hop_size": 8},
        {"resblock": "2"},
        {"win_size": 800},
        {"resblock_dilation_sizes": [[1, 3, 5, 7]] * 3},
    ],
)
def test_the_front_end_does_not_ask_the_vocoder(changes: dict[str, object], tmp_path: Path) -> None:
    """The released code builds it with its defaults, and its vocoder in one way."""
    golden = _copy(tmp_path, "g_audio_vae_vocoder")
    _with_vocoder(golden, **changes)
    assert _verdicts(golden) == dict.fromkeys(HEARD, "pass")


OTHER_EAR = {"filter_length": 512, "win_length": 512, "hop_length": 80, "n_mel_channels": 32}


def _with_front_end(golden: Golden) -> None:
    """Let a golden's sounds be heard by another front end: what is expected is ours of it."""
    _without(golden, "z", "out_mel", "out_wave")
    ear = MelConfig(window=512, hop=80, bins=32, centred_on="start", levelled=True, columns=2 * 64)
    golden.tensors["mel_basis"] = mel_filters(ear)
    golden.tensors["out_fbank"] = log_mel(golden["wav"], ear)[:, :, :64].contiguous()
    autoencoder = released_autoencoder(golden.about)
    weights = {k: v for k, v in golden.weights().items() if not k.startswith("vocoder.")}
    codec = golden.filled(autoencoder.build(), codecs.autoencoder_kl(autoencoder), weights)
    with torch.no_grad():
        mean, log_variance = codec.posterior(golden["out_fbank"][:, :, None])
    golden.tensors["out_mean"] = mean[:, :, 0]
    golden.tensors["out_logvar"] = log_variance[:, :, 0]


@needs_goldens
def test_a_front_end_of_its_own_may_be_stated(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "g_audio_vae_vocoder")
    _with_front_end(golden)
    assert _verdicts(golden)["out_fbank"] == "fail"
    golden.about["stft"] = dict(OTHER_EAR)
    found = _verdicts(golden)
    assert {name: found[name] for name in HEARD[:4]} == dict.fromkeys(HEARD[:4], "pass")


@needs_goldens
@pytest.mark.parametrize("kept", HEARD[:4])
def test_a_front_end_may_be_the_vocoders_where_that_is_what_was_heard(
    kept: str, tmp_path: Path
) -> None:
    golden = _copy(tmp_path, "g_audio_vae_vocoder")
    _with_front_end(golden)
    golden.about["hifigan"].update(n_fft=512, win_size=512, hop_size=80, num_mels=32)
    _without(golden, "w.vocoder.", *(name for name in HEARD if name != kept))
    assert _verdicts(golden)[kept] == "pass"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"win_length": 800}, "filter_length = 1024 beside win_length = 800; .* one for both"),
        ({"hop_length": 320}, "hop_length = 320; the front end here has one that divides 640"),
        ({"hop_length": 7}, "hop_length = 7; the front end"),
    ],
)
def test_a_front_end_of_another_kind_is_named(told: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        released_front_ends({"hifigan": {}, "stft": told}, columns=4)
    assert len(released_front_ends({"hifigan": {"win_size": 800}}, columns=4)) == 1


@needs_goldens
def test_sounds_are_cut_to_the_time_that_is_told(tmp_path: Path) -> None:
    """66 columns leave latents of 16, as 64 do: those do not tell."""
    golden = _copy(tmp_path, "g_audio_vae_vocoder")
    golden.tensors["out_fbank"] = torch.zeros(2, 1, 66, 64)
    made = _check(golden).run(golden)
    for name in ("out_mean", "out_logvar"):
        value = made[name]
        assert isinstance(value, torch.Tensor)
        assert value.shape[2] == 16
        golden.tensors[name] = value
    _without(golden, "out_fbank")
    assert _verdicts(golden)["out_mean"] == "fail"
    golden.about["time"] = 0.65
    assert _verdicts(golden)["out_mean"] == "pass"


@needs_goldens
def test_the_front_end_is_checked_alone(tmp_path: Path) -> None:
    golden = _without(_copy(tmp_path, "g_audio_vae_vocoder"), "w.", "z", "out_m", "out_l", "out_w")
    about: dict[str, Any] = {"time": golden.about["time"], "tensors": list(golden.tensors)}
    golden.about.clear()
    golden.about.update(about)
    assert _verdicts(golden) == dict.fromkeys(("mel_basis", "out_fbank"), "pass")
    golden.about["fft"] = {"mel_fmax": 7000}
    assert _verdicts(golden) == dict.fromkeys(("mel_basis", "out_fbank"), "fail")


@needs_goldens
@pytest.mark.parametrize("prefix", ["w.vocoder.", "w."])
@pytest.mark.parametrize("axes", [3, 4])
def test_the_vocoder_is_checked_alone(prefix: str, axes: int, tmp_path: Path) -> None:
    golden = _copy(tmp_path, "g_audio_vae_vocoder")
    mel, wave = golden["out_mel"], golden["out_wave"]
    weights = {
        name.replace("w.vocoder.", prefix): value
        for name, value in golden.tensors.items()
        if name.startswith("w.vocoder.")
    }
    about: dict[str, Any] = {"hifigan": golden.about["hifigan"], "tensors": ["mel", "out_wave"]}
    golden.tensors.clear()
    golden.tensors.update(weights)
    golden.tensors["mel"] = mel if axes == 4 else mel[:, 0].transpose(1, 2)
    golden.tensors["out_wave"] = wave
    golden.about.clear()
    golden.about.update(about)
    assert _verdicts(golden) == {"out_wave": "pass"}


@needs_goldens
def test_a_vocoder_whose_autoencoder_has_no_weights_is_given_the_spectrogram(
    tmp_path: Path,
) -> None:
    golden = _copy(tmp_path, "g_audio_vae_vocoder")
    of_others = [n for n in golden.tensors if n.startswith("w.") and ".vocoder." not in n]
    _without(golden, *of_others, "wav", "mel_basis", "out_fbank", "out_mean", "out_logvar")
    golden.about["tensors"] = [name for name in golden.tensors if not name.startswith("w.")]
    found = {line.tensor: line for line in verify(golden, CHECKS)}
    assert found["out_wave"].verdict == "pass"
    assert found["out_mel"].verdict == "not checked"
    assert "the vocoder is given it" in found["out_mel"].note


@needs_goldens
def test_a_spectrogram_is_cut_as_the_latents_say_where_it_is_not_kept(tmp_path: Path) -> None:
    golden = _without(_copy(tmp_path, "g_audio_vae_vocoder"), "out_fbank")
    del golden.about["time"]
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


@needs_goldens
@pytest.mark.parametrize(
    ("half", "key", "value", "off"),
    [
        ("encoder_config", "hidden_act", "relu", "out_seq"),
        ("encoder_config", "hidden_act", "swish", "out_seq"),
        ("encoder_config", "layer_norm_eps", 1e-2, "out_seq"),
        ("decoder_config", "layer_norm_epsilon", 1e-2, "out_logits_0"),
    ],
)
def test_what_a_half_of_optimus_says_of_itself_is_read(
    half: str, key: str, value: object, off: str, tmp_path: Path
) -> None:
    """The halves themselves are held against those of `transformers`."""
    golden = _copy(tmp_path, "h_optimus")
    assert _verdicts(golden)[off] == "pass"
    golden.about[half][key] = value
    assert _verdicts(golden)[off] == "fail"


@needs_goldens
@pytest.mark.parametrize(
    ("half", "key", "message"),
    [
        ("encoder_config", "hidden_act", "'mish'; BERT here has gelu, relu, swish"),
        ("decoder_config", "activation_function", "'mish'; GPT-2 here has gelu_new or"),
    ],
)
def test_an_activation_that_optimus_does_not_have_is_named(
    half: str, key: str, message: str, tmp_path: Path
) -> None:
    golden = _copy(tmp_path, "h_optimus")
    golden.about[half][key] = "mish"
    with pytest.raises(ConfigError, match=rf"{half}\.{key} = {message}"):
        _check(golden).run(golden)
    (line,) = verify(golden, CHECKS)
    assert line.note.startswith(str(golden.path))


@needs_goldens
def test_optimus_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "h_optimus")
    for key in ("hidden_act", "layer_norm_eps", "type_vocab_size"):
        del golden.about["encoder_config"][key]
    del golden.about["decoder_config"]["layer_norm_epsilon"]
    del golden.about["text_scale_factor"]
    assert set(_verdicts(golden).values()) == {"pass"}


@needs_goldens
def test_lacking_weights_are_drawn_by_any_seed_that_is_said(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "h_optimus")
    for said in ({"seeds": [31, 30]}, {"seed": 31}):
        del golden.about[next(key for key in ("seeds", "seed") if key in golden.about)]
        golden.about.update(said)
        assert set(_verdicts(golden).values()) == {"pass"}
    golden.about["seed"] = 4
    with pytest.raises(ConfigError, match=r"no seed that it says draws the others \(4\); add the"):
        _check(golden).run(golden)
    for name in ("out_greedy_0", "out_greedy_1"):  # tokens stored in few bits
        golden.tensors[name] = golden.tensors[name].short()
    golden.about["seed"] = 31
    assert set(_verdicts(golden).values()) == {"pass"}
