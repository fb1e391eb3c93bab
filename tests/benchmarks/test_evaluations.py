"""Evaluations: what is counted follows from the shapes, and what is timed is there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import nn

from codi.benchmarks import evaluations
from codi.benchmarks.evaluations import (
    PEER,
    Setting,
    evaluation_flops,
    measure,
    resized,
    weights_read,
)
from codi.benchmarks.machine import Work
from codi.benchmarks.networks import model_of_shapes
from codi.build import load_config
from codi.config import ConfigError
from codi.nn.attention import Attention, Projected
from tests.small import small_config


def test_together_costs_the_sum_and_the_environment() -> None:
    config = load_config("tiny")
    model = model_of_shapes(config)
    alone = sum(evaluation_flops(model, [name]) for name in config.generated)
    together = evaluation_flops(model, config.generated)
    assert alone < together < 1.25 * alone
    assert together < 10e9  # the promise of the preset


def test_weights_of_layers_that_are_not_called_are_not_read() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    assert len(weights_read(network, lambda: network(torch.zeros(1, 2)))) == 4
    assert len(weights_read(network, lambda: network[0](torch.zeros(1, 2)))) == 2


def test_one_token_leaves_queries_and_keys_unread() -> None:
    model = model_of_shapes(load_config("stable-diffusion"), ["diffusers.vision"])
    names = {id(p): name for name, p in model.named_parameters()}
    codi, z_t, t = model.codi(["image"]), torch.zeros(1, 4, 1, 8, 8), torch.ones(1)
    for tokens in (1, 2):
        inputs = {"image": z_t.to("meta")}, {"image": t.to("meta")}
        prompt = torch.zeros(1, tokens, 768, device="meta")
        with torch.device("meta"):
            found = weights_read(codi, partial(codi, *inputs, prompt))
        read = " ".join(names[id(p)] for p in found)
        assert ("cross_attention.to_q" in read) is (tokens > 1)
        assert ("cross_norm" in read) is (tokens > 1)
        assert "cross_attention.to_v" in read


def test_sizes_change_only_what_has_them() -> None:
    config = resized(load_config("release"), frames=4, size=16)
    shapes = {name: settings.latent for name, settings in config.modalities.items()}
    assert shapes == {
        "text": (768,), "image": (4, 1, 16, 16), "video": (4, 4, 16, 16), "audio": (8, 1, 256, 16)
    }  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
def test_streams_are_measured_alone_and_together(packed: bool) -> None:
    report = measure(small_config(), Setting(("video", "audio"), packed=packed, repeat=1))
    video, audio, together = report.evaluations
    assert [e.name for e in report.evaluations] == ["video", "audio", "video + audio"]
    assert together.flops > video.flops + audio.flops
    assert together.bytes_read > video.bytes_read + audio.bytes_read
    assert report.of_parts is not None
    assert report.environment == 1 - (video.flops + audio.flops) / together.flops


def test_a_prepared_prompt_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, projected = 7, []
    project = Attention.project

    def counting(attention: Attention, source: torch.Tensor) -> Projected:
        if source.device.type == "cpu" and source.shape[1] == tokens:
            projected.append(attention)
        return project(attention, source)

    monkeypatch.setattr(Attention, "project", counting)
    calls, reports = [], []
    for prepared in (False, True):
        projected.clear()
        setting = Setting(("text",), tokens=tokens, prepared=prepared, repeat=3)
        reports.append(measure(small_config(), setting))
        calls.append(len(projected))
    assert calls[0] == 4 * calls[1] > 0  # once, in place of in one warm-up and three turns
    for before, after in zip(*(report.evaluations for report in reports), strict=True):
        assert 0 < after.flops < before.flops
        assert 0 < after.bytes_read < before.bytes_read


def test_a_peer_prepares_nothing() -> None:
    with pytest.raises(ConfigError, match="leave --prepared out"):
        Setting(("image",), prepared=True, against_peer=True)


def test_what_is_recorded_takes_nothing_prepared() -> None:
    with pytest.raises(ConfigError, match="recorded on a GPU, or compiled there"):
        Setting(("image",), device="cuda", prepared=True)
    assert Setting(("image",), compiled=True, prepared=True).readiness.takes_prepared


def test_shares_are_medians_over_the_turns_of_what_the_machine_did_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = iter([1e30, 4e9, 1e9, 2e9])  # the first warms up, and does not count
    monkeypatch.setattr(evaluations, "_speeds", lambda _: dict.fromkeys(SPEEDS, next(turns)))
    monkeypatch.setattr(evaluations, "in_turns", _in_turns_of_one_second)
    report = measure(small_config(), Setting(("text",), repeat=3))
    (text,) = report.evaluations
    assert (report.peak, report.reading) == (2e9, 2e9)
    assert text.of_peak == pytest.approx(text.flops / 2e9)
    assert text.of_reading == pytest.approx(text.bytes_read / 2e9)


SPEEDS = ("peak", "reading")


def _in_turns_of_one_second(
    works: Mapping[str, Work], repeat: int, _device: str, warm_up: int
) -> dict[str, list[float]]:
    for _ in range(warm_up + repeat):
        for work in works.values():
            work()
    return {name: [1.0] * repeat for name in works}


def test_a_stream_alone_has_no_environment() -> None:
    report = measure(small_config(), Setting(("text",), repeat=1))
    assert (report.of_parts, report.of_peer, report.environment) == (None, None, None)


@pytest.mark.parametrize("stream", ["text", "video", "image"])  # the last has no count of heads
def test_what_has_no_peer_is_an_error(stream: str) -> None:
    with pytest.raises(ConfigError, match="diffusers has no network like this"):
        measure(small_config(), Setting((stream,), against_peer=True, repeat=1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_peer_gives_the_same_numbers() -> None:
    pytest.importorskip("diffusers", reason="needs codi[external]")
    config = load_config(
        "stable-diffusion",
        ["diffusers.vision.channels=32", "modalities.image.latent=[4, 1, 16, 16]"],
    )
    report = measure(config, Setting(("image",), against_peer=True, repeat=1))
    assert report.evaluations[-1].name == PEER
    assert report.difference is not None
    assert report.difference < 1e-4
    assert report.of_peer is not None
