"""Deep features kept between evaluations: exact where nothing is reused, counted where they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from codi.build import load_config
from codi.unets.reuse import DeepFeatures
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNet
from tests.small import awake
from tests.unets.test_unet import CONFIG


def _given(seed: int = 0, size: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "z_t": torch.randn(size, 4, 3, 4, 4, generator=generator),
        "t": torch.randint(1, 1000, (size,), generator=generator),
        "context": torch.randn(size, 1, 8, generator=generator),
        "environment": torch.randn(size, 5, 6, generator=generator),
    }


def _unet(**changes: Any) -> UNet:
    return awake(dataclasses.replace(CONFIG, **changes).build()).eval()


@pytest.mark.parametrize("skips", ["standard", "aliased"])
@pytest.mark.parametrize("depth", [1, 2])
@torch.no_grad()
def test_one_evaluation_in_one_is_exact(skips: str, depth: int) -> None:
    unet, deep = _unet(skips=skips, depth=depth), DeepFeatures(1)
    for seed in range(3):
        assert torch.equal(unet(**_given(seed), deep=deep), unet(**_given(seed)))
    assert (deep.computed, deep.reused) == (3, 0)


@torch.no_grad()
def test_the_same_input_again_changes_nothing() -> None:
    unet, deep = _unet(), DeepFeatures(4)
    first = unet(**_given(), deep=deep)
    assert torch.equal(unet(**_given(), deep=deep), first)
    assert (deep.computed, deep.reused) == (1, 1)


@torch.no_grad()
def test_the_inside_is_computed_at_every_nth_evaluation_only() -> None:
    unet, deep, seen = _unet(), DeepFeatures(3), []
    unet.middle[0].register_forward_hook(lambda *_: seen.append(1))
    for seed in range(7):
        made = unet(**_given(seed), deep=deep)
        assert not torch.equal(made, unet(**_given(seed))) or seed % 3 == 0
    assert (deep.computed, deep.reused) == (3, 4)
    assert len(seen) == 3 + 7


@torch.no_grad()
def test_another_batch_computes_the_inside_again() -> None:
    unet, deep = _unet(), DeepFeatures(9)
    unet(**_given(), deep=deep)
    alone = _given(1, size=1)
    assert torch.equal(unet(**alone, deep=deep), unet(**alone))
    assert (deep.computed, deep.reused) == (2, 0)


@torch.no_grad()
def test_a_reused_inside_spares_operations() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = load_config("release").part("diffusers", "vision")
    with torch.device("meta"):
        unet, deep, flops = config.build(), DeepFeatures(2), []
        for _ in range(2):
            with FlopCounterMode(display=False) as counter:
                unet(
                    torch.zeros(1, 4, 1, 64, 64),
                    torch.ones(1, dtype=torch.long),
                    torch.zeros(1, 1, 768),
                    deep=deep,
                )
            flops.append(counter.get_total_flops())
    assert flops[1] < 0.35 * flops[0]


@torch.no_grad()
def test_sentences_reuse_too() -> None:
    inner = dataclasses.replace(CONFIG, latent_channels=16, temporal=None)
    unet = awake(TextUNetConfig(latent_width=8, positions=2, unet=inner).build()).eval()
    deep = DeepFeatures(2)
    z, t, context = torch.randn(2, 8), torch.tensor([3, 4]), torch.randn(2, 1, 8)
    assert torch.equal(unet(z, t, context, deep=deep), unet(z, t, context))
    unet(z + 1.0, t, context, deep=deep)
    assert (deep.computed, deep.reused) == (1, 1)
