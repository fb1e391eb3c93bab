"""Tables of codecs: complete, readable in both directions, and the same numbers on both sides."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codi.audio import MelConfig
from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.bert import Bert
from codi.codecs.gpt2 import GPT2
from codi.codecs.mel import MelCodecConfig
from codi.codecs.optimus import OptimusConfig
from codi.codecs.vocoder import VocoderConfig
from codi.convert.codecs import (
    DIFFUSERS,
    OLD_DIFFUSERS,
    autoencoder_kl,
    autoencoder_kl_config,
    bert_rules,
    gpt2_rules,
    mel_codec,
    optimus,
    optimus_decoder,
    optimus_encoder,
    vocoder,
    vocoder_config,
)
from codi.convert.layouts import AUDIOLDM_DIFFUSERS
from codi.convert.rules import SAME, Table
from tests.released import LAYOUT, needs_goldens

[SPEECH_T5] = [m for m in AUDIOLDM_DIFFUSERS.modules if m.inside == "vocoder"]

IMAGE = AutoencoderKLConfig(
    in_channels=3,
    latent_channels=4,
    channels=128,
    attention_bias=True,
    asymmetric_padding=True,
    quant_convolutions=True,
    norm_eps=1e-6,
    group_channels=1,
    scale_factor=0.18215,
)
AUDIO = MelCodecConfig(
    mel=MelConfig(centred_on="start", levelled=True, columns=1024),
    autoencoder=replace(
        IMAGE, in_channels=1, latent_channels=8, multipliers=(1, 2, 4), scale_factor=0.9228
    ),
    vocoder=VocoderConfig(overhang=True),
    centre=0.0,
    spread=1.0,
)
TEXT = OptimusConfig()

RELEASED = {
    "autokl": (IMAGE, autoencoder_kl(IMAGE, "autokl")),
    "audioldm": (AUDIO, mel_codec(AUDIO, "audioldm")),
    "optimus": (TEXT, optimus(TEXT, "optimus")),
}
"""Parts of the released CoDi by their prefix: configuration and table."""

SMALL = replace(IMAGE, channels=8, multipliers=(1, 2), depth=1, groups=4)
PLAIN = replace(SMALL, middle_attention=False, quant_convolutions=False)
SMALL_VOCODER = VocoderConfig(
    bins=4, channels=16, upsample=(5, 2), upsample_kernels=(16, 4), overhang=True
)
UNPAIRED = replace(SMALL_VOCODER, paired=False, dilations=((1, 2), (2, 6), (3, 12)))
SMALL_AUDIO = replace(
    AUDIO,
    autoencoder=replace(SMALL, in_channels=1, latent_channels=8),
    vocoder=SMALL_VOCODER,
    mel=replace(AUDIO.mel, hop=10),
)


def _shapes(config: Any) -> dict[str, Tensor]:
    with torch.device("meta"):
        return config.build().state_dict()


def _layout(prefix: str) -> dict[str, tuple[int, ...]]:
    rows = (LAYOUT / "CoDi_encoders.pth.tsv").read_text(encoding="utf-8").splitlines()[1:]
    columns = (row.split("\t") for row in rows)
    return {
        name: tuple(int(side) for side in shape.split("x"))
        for name, shape, *_ in columns
        if name.startswith(f"{prefix}.")
    }


# --- the released CoDi ---


@needs_goldens
@pytest.mark.parametrize("prefix", RELEASED)
def test_every_tensor_of_the_release_has_its_place(prefix: str) -> None:
    config, table = RELEASED[prefix]
    ours, theirs = _shapes(config), _layout(prefix)
    found = {}
    for foreign, shape in theirs.items():
        place = table.ours(foreign)
        if place is None:
            assert table.why_unused(foreign), foreign
            continue
        name, layout = place
        found[name] = tuple(layout.to_ours(torch.empty(shape, device="meta")).shape)
        assert table.foreign(name) == (foreign, layout)
    assert found == {name: tuple(tensor.shape) for name, tensor in ours.items()}


@needs_goldens
def test_what_the_release_has_besides_is_known() -> None:
    unused = {
        foreign.removeprefix(f"{prefix}.")
        for prefix, (_, table) in RELEASED.items()
        for foreign in _layout(prefix)
        if table.ours(foreign) is None
    }
    masks = {f"decoder.transformer.h.{i}.attn.bias" for i in range(12)}
    bases = {f"fn_STFT.{name}" for name in ("mel_basis", "stft_fn.forward_basis")}
    assert unused == masks | bases | {"fn_STFT.stft_fn.inverse_basis", "decoder.lm_head.weight"}


@needs_goldens
@pytest.mark.parametrize(
    ("prefix", "entry", "modules", "key"),
    [
        ("autokl", "autokl", ("",), "total"),
        ("audioldm", "audioldm_vae_total", ("",), "total"),
        ("audioldm", "audioldm_vae_total", ("vocoder",), "vocoder"),
        ("optimus", "optimus", ("",), "total"),
        ("optimus", "optimus", ("encoder", "to_moments"), "encoder"),
        ("optimus", "optimus", ("decoder", "latent_"), "decoder"),
    ],
)
def test_the_counts_are_the_releases(
    prefix: str, entry: str, modules: tuple[str, ...], key: str
) -> None:
    summary = json.loads((LAYOUT / "summary.json").read_text(encoding="utf-8"))
    counted = sum(
        t.numel() for n, t in _shapes(RELEASED[prefix][0]).items() if n.startswith(modules)
    )
    assert counted == summary[entry][key]


# --- every table ---


@pytest.mark.parametrize(
    ("config", "table"),
    [
        (SMALL, autoencoder_kl(SMALL)),
        (SMALL, autoencoder_kl(SMALL, "first_stage_model")),
        (SMALL, autoencoder_kl(SMALL, names=DIFFUSERS)),
        (SMALL, autoencoder_kl(SMALL, names=OLD_DIFFUSERS)),
        (PLAIN, autoencoder_kl(PLAIN)),
        (SMALL_AUDIO, mel_codec(SMALL_AUDIO, "first_stage_model")),
        (SMALL_AUDIO, mel_codec(SMALL_AUDIO)),
        (SMALL_VOCODER, vocoder(SMALL_VOCODER)),
        (SMALL_VOCODER, SPEECH_T5.table(SMALL_VOCODER)),
        (UNPAIRED, vocoder(UNPAIRED)),
        (TEXT, optimus(TEXT)),
        (TEXT, optimus_encoder(TEXT)),
        (TEXT, optimus_decoder(TEXT)),
    ],
)
def test_exporting_undoes_converting(config: Any, table: Table) -> None:
    foreign_names = set()
    for name in _shapes(config):
        place = table.foreign(name)
        if place is None:
            assert table.why_fresh(name), name
            continue
        foreign, layout = place
        foreign_names.add(foreign)
        assert table.ours(foreign) == (name, layout)
        assert table.why_unused(foreign) is None
    assert len(foreign_names) > 10


def test_the_second_kind_of_residual_block_has_one_list_of_convolutions() -> None:
    table = vocoder(UNPAIRED)
    assert table.foreign("blocks.1.2.dilated.0.weight") == ("resblocks.5.convs.0.weight", SAME)
    assert table.foreign("blocks.1.2.plain.0.weight") is None


def test_the_halves_of_optimus_are_the_whole() -> None:
    whole = {rule.ours for rule in optimus(TEXT).rules}
    halves = [{r.ours for r in table(TEXT).rules} for table in (optimus_encoder, optimus_decoder)]
    assert halves[0] | halves[1] == whole
    assert not halves[0] & halves[1]


# --- the libraries' numbers ---


def _copied(theirs: nn.Module, ours: nn.Module, tables: Iterable[Table]) -> None:
    """Give every tensor of a library's module another value, and the same to ours."""
    state = {}
    for foreign, value in theirs.state_dict().items():
        value.copy_(0.2 * torch.randn(value.shape) + 0.5 * (value.ndim == 1))
        for table in tables:
            place = table.ours(foreign)
            if place is None:
                assert table.why_unused(foreign), foreign
            else:
                state[place[0]] = place[1].to_ours(value)
    ours.load_state_dict(state)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "levels"), [(1, ()), (3, ()), (3, (1,)), (3, (0, 1))])
@torch.no_grad()
def test_the_autoencoder_is_diffusers(channels: int, levels: tuple[int, ...]) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    config = replace(SMALL, in_channels=channels, attention_levels=levels)
    described = autoencoder_kl_config(config)
    theirs = diffusers.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=described["down_block_types"],
        up_block_types=described["up_block_types"],
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    ).eval()
    codec = config.build().eval()
    _copied(theirs, codec, [autoencoder_kl(config, names=DIFFUSERS)])
    x, z = torch.randn(2, channels, 16, 24), torch.randn(2, 4, 8, 12)
    posterior = theirs.encode(x).latent_dist
    mean, log_variance = (moment[:, :, 0] for moment in codec.posterior(x[:, :, None]))
    torch.testing.assert_close(mean, posterior.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(log_variance, posterior.logvar, atol=1e-4, rtol=1e-4)
    decoded = codec.decode_raw(z[:, :, None])[:, :, 0]
    torch.testing.assert_close(decoded, theirs.decode(z).sample, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dilations", [(1, 3, 5), ((1,), (1, 3), (2, 6))])
@torch.no_grad()
def test_the_vocoder_is_transformers(dilations: Any) -> None:
    transformers = pytest.importorskip("transformers", reason="needs codi[external]")
    c = replace(SMALL_VOCODER, dilations=dilations)
    theirs = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=c.bins,
            upsample_initial_channel=c.channels,
            upsample_rates=list(c.upsample),
            upsample_kernel_sizes=list(c.upsample_kernels),
            resblock_kernel_sizes=list(c.kernels),
            resblock_dilation_sizes=vocoder_config(c)["resblock_dilation_sizes"],
            normalize_before=False,
        )
    ).eval()
    ours = c.build().eval()
    _copied(theirs, ours, [SPEECH_T5.table(c)])
    mel = torch.randn(2, 9, c.bins)
    torch.testing.assert_close(ours(mel[:, None]), theirs(mel), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("activation", "eps", "segments"), [("gelu", 1e-12, 2), ("relu", 1e-2, 1), ("swish", 1e-5, 3)]
)
@torch.no_grad()
def test_the_encoder_of_text_is_transformers_bert(
    activation: str, eps: float, segments: int
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs codi[external]")
    theirs = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=16,
            hidden_act=activation,
            layer_norm_eps=eps,
            type_vocab_size=segments,
        )
    ).eval()
    ours = Bert(30, 16, 16, 2, 2, 24, activation, eps, segments).eval()
    _copied(theirs, ours, [Table(tuple(bert_rules(2)))])
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
    expected = theirs(input_ids=ids, attention_mask=(ids > 0).long())
    sequence, pooled = ours(ids, ids > 0)
    torch.testing.assert_close(sequence[ids > 0], expected.last_hidden_state[ids > 0])
    torch.testing.assert_close(pooled, expected.pooler_output)


@pytest.mark.parametrize("eps", [1e-5, 1e-1])
@torch.no_grad()
def test_the_decoder_of_text_without_memories_is_transformers_gpt2(eps: float) -> None:
    transformers = pytest.importorskip("transformers", reason="needs codi[external]")
    sizes = {"vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    theirs = transformers.GPT2Model(transformers.GPT2Config(**sizes, layer_norm_epsilon=eps)).eval()
    ours = GPT2(40, 16, 16, 2, 2, eps).eval()
    _copied(theirs, ours, [Table(tuple(gpt2_rules(2)))])
    ids, nothing = torch.randint(0, 40, (2, 7)), torch.zeros(2, 2, 0, 8)
    hidden, _ = ours(ids, torch.zeros(2, 1, 16), [(nothing, nothing)] * 2)
    expected = theirs(input_ids=ids).last_hidden_state
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
