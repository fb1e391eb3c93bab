"""Tables of diffusers: every key and shape of the published files, and the same numbers."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codi.build import load_config, share_counts
from codi.convert.check_unets import TEMPORAL_CONFIG
from codi.convert.rules import Table
from codi.convert.unets import (
    POINTWISE_3D,
    UNBATCHED,
    released_diffuser,
    released_environment,
    schedule_buffers,
    stable_diffusion,
    stable_diffusion_diffusers,
    versatile_text,
)
from codi.diffusion import PREDICTIONS, NoiseSchedule
from codi.diffusion.guidance import combine
from codi.diffusion.sampling import sample_ddim
from codi.nn.temporal import TemporalConfig
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNetConfig
from tests.released import LAYOUT
from tests.small import awake

needs_layout = pytest.mark.skipif(
    not LAYOUT.is_dir(), reason="needs the list of keys of the released CoDi"
)

FILES = {
    "vision": ("CoDi_video_diffuser_8frames", "unet_image"),
    "text": ("CoDi_text_diffuser", "unet_text"),
    "audio": ("CoDi_audio_diffuser_m", "unet_audio"),
}

SMALL = UNetConfig(
    latent_channels=4,
    channels=16,
    context_width=8,
    duration_s=2.0,
    multipliers=(1, 2),
    depth=1,
    attention=(True, False),
    heads=2,
    groups=8,
    environment_width=6,
    environment="transformer",
    first_step=0,
    temporal=TEMPORAL_CONFIG,
)


@functools.cache
def _published(file: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a published file."""
    lines = (LAYOUT / f"{file}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    shapes = {}
    for line in lines:
        key, shape = line.split("\t")[:2]
        shapes[key] = tuple(int(size) for size in shape.split("x")) if shape else ()
    return shapes


def _exported(module: nn.Module, table: Table) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of ours under its foreign name."""
    shapes = {}
    for ours, tensor in module.state_dict().items():
        found = table.foreign(ours)
        assert found is not None, ours
        name, layout = found
        assert table.ours(name) == (ours, layout)
        shapes[name] = tuple(layout.to_foreign(tensor).shape)
    return shapes


@needs_layout
@pytest.mark.parametrize("name", FILES)
def test_every_key_and_shape_of_the_released_diffusers_has_its_place(name: str) -> None:
    file, network = FILES[name]
    config = load_config("release")
    prefix = f"model.diffusion_model.{network}"
    shapes: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        for role, table in (
            ("diffusers", released_diffuser),
            ("environments", released_environment),
        ):
            part = config.part(role, name)
            shapes |= _exported(part.build(), table(part, prefix))
    assert shapes == _published(f"{file}.pth")


@needs_layout
@pytest.mark.parametrize("name", FILES)
def test_the_parts_have_the_released_sizes(name: str) -> None:
    network = FILES[name][1].replace("unet_image", "unet_image_video")
    summary = json.loads((LAYOUT / "summary.json").read_text())[network]
    config = load_config("release")
    shares = share_counts(
        dataclasses.replace(
            config,
            modalities={
                m: dataclasses.replace(entry, codec=None, encoder=None)
                for m, entry in config.modalities.items()
                if entry.diffuser == name
            },
        )
    )
    diffuser, environment = shares[f"diffusers.{name}"], shares[f"environments.{name}"]
    extra = diffuser["environment attention"] + diffuser["temporal blocks"]
    assert diffuser[""] - extra == summary["main_without_temporal_and_connectors"]
    assert diffuser["environment attention"] == summary["cross_attn_connecters_in"]
    assert diffuser["temporal blocks"] == summary["temporal_in_main"]
    assert environment[""] == summary["env_encoder_connecters_out"]
    assert environment["temporal blocks"] == summary["temporal_in_env"]
    assert diffuser[""] + environment[""] == summary["total"]


@needs_layout
def test_the_shift_has_its_released_share_of_the_temporal_blocks() -> None:
    summary = json.loads((LAYOUT / "summary.json").read_text())["unet_image_video"]
    with torch.device("meta"):
        unet = load_config("release").part("diffusers", "vision").build()
    shift = [p.numel() for name, p in unet.named_parameters() if ".temporal.shift_" in name]
    assert sum(shift) == summary["frameshift_in_main"]


@needs_layout
def test_the_schedule_has_the_buffers_of_latent_diffusion() -> None:
    buffers = schedule_buffers(NoiseSchedule.build())
    assert {name: tuple(x.shape) for name, x in buffers.items()} == _published(
        "ddpm_schedule_buffers"
    )
    assert all(x.dtype == torch.float64 and x.isfinite().all() for x in buffers.values())


def test_the_buffers_make_the_posterior() -> None:
    """Ho et al. 2020, Eq. 6 and 7: data and noise that agree are a fixed point of the mean."""
    b = schedule_buffers(NoiseSchedule.build())
    z0, t = torch.tensor(1.5, dtype=torch.float64), 500
    z_t = b["sqrt_alphas_cumprod"][t] * z0
    mean = b["posterior_mean_coef1"][t] * z0 + b["posterior_mean_coef2"][t] * z_t
    torch.testing.assert_close(mean, b["alphas_cumprod_prev"][t].sqrt() * z0)
    recovered = b["sqrt_recip_alphas_cumprod"][t] * z_t
    torch.testing.assert_close(recovered, z0)
    assert b["posterior_variance"][0] == 0


@pytest.mark.parametrize("layout", [UNBATCHED, POINTWISE_3D])
def test_every_layout_is_invertible(layout: Any) -> None:
    ours = torch.randn(3, 5)
    assert torch.equal(layout.to_ours(layout.to_foreign(ours)), ours)


TEXT = TextUNetConfig(
    latent_width=12,
    positions=4,
    unet=dataclasses.replace(SMALL, latent_channels=16, temporal=None),
    blocks="fully_connected",
)


ALONE = dataclasses.replace(TEXT, unet=dataclasses.replace(TEXT.unet, environment_width=None))


@pytest.mark.parametrize(
    ("config", "table"),
    [
        (SMALL, released_diffuser(SMALL)),
        (TEXT, released_diffuser(TEXT, "unet_text")),
        (ALONE, versatile_text(TEXT)),
    ],
)
def test_whatever_is_exported_comes_back(config: Any, table: Table) -> None:
    state = awake(config.build()).state_dict()
    foreign = {}
    for ours, tensor in state.items():
        found = table.foreign(ours)
        assert found is not None
        foreign[found[0]] = found[1].to_foreign(tensor)
    assert len(foreign) == len(state)
    for name, tensor in foreign.items():
        found = table.ours(name)
        assert found is not None
        assert torch.equal(found[1].to_ours(tensor), state[found[0]])


@pytest.mark.parametrize("make", [stable_diffusion, stable_diffusion_diffusers])
def test_what_stable_diffusion_lacks_begins_as_nothing(make: Any) -> None:
    """A model of its weights and fresh other parts makes the same pictures, and alone or not."""
    table, image = make(SMALL), dataclasses.replace(SMALL, temporal=None, environment_width=None)
    stable = awake(image.build()).eval()
    unet = SMALL.build().eval()
    missing, unexpected = unet.load_state_dict(stable.state_dict(), strict=False)
    assert not unexpected
    assert missing
    for name in missing:
        assert table.foreign(name) is None
        assert table.why_fresh(name)
    for name in stable.state_dict():
        assert table.foreign(name) is not None
    z, t, context = torch.randn(2, 4, 1, 8, 8), torch.tensor([1, 900]), torch.randn(2, 1, 8)
    with torch.no_grad():
        expected = stable(z, t, context)
        assert torch.equal(unet(z, t, context), expected)
        assert torch.equal(unet(z, t, context, torch.randn(2, 1, 6)), expected)
        clip = unet(z.expand(-1, -1, 3, -1, -1), t, context)
    torch.testing.assert_close(clip, expected.expand_as(clip), atol=1e-5, rtol=1e-4)


def test_the_papers_temporal_blocks_have_no_place_in_the_release() -> None:
    config = dataclasses.replace(SMALL, temporal=TemporalConfig())
    assert released_diffuser(config).foreign("down.0.0.temporal.norm.weight") is None


def _diffusers_twin(config: UNetConfig) -> Any:
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    deep = len(config.multipliers)
    kind = ["CrossAttn" if attends else "" for attends in config.attention]
    return diffusers.UNet2DConditionModel(
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=[config.channels * m for m in config.multipliers],
        down_block_types=[f"{kind[i]}DownBlock2D" for i in range(deep)],
        up_block_types=[f"{kind[i]}UpBlock2D" for i in reversed(range(deep))],
        layers_per_block=config.depths[0],
        attention_head_dim=config.heads,
        cross_attention_dim=config.context_width,
        norm_num_groups=config.groups,
    ).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tokens", [1, 5])
@torch.no_grad()
def test_diffusers_unet_gives_the_same_numbers(tokens: int) -> None:
    config = dataclasses.replace(
        SMALL, channels=32, multipliers=(1, 2, 2), depth=2, attention=(True, True, False)
    )
    twin, unet = _diffusers_twin(config), config.build().eval()
    table = stable_diffusion_diffusers(config)
    state: dict[str, Tensor] = {}
    for name, tensor in twin.state_dict().items():
        found = table.ours(name)
        assert found is not None, name
        state[found[0]] = found[1].to_ours(tensor)
    missing, unexpected = unet.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(table.why_fresh(name) for name in missing)
    z, context, steps = torch.randn(2, 4, 16, 16), torch.randn(2, tokens, 8), torch.tensor([0, 999])
    expected = twin(z, steps, context).sample
    ours = unet(z.unsqueeze(2), steps + 1, context).squeeze(2)
    assert (ours - expected).abs().max() < 1e-4 * expected.std()


@pytest.mark.filterwarnings("ignore")
def test_stable_diffusion_has_a_place_for_every_tensor() -> None:
    config = load_config("paper").part("diffusers", "vision")
    image = dataclasses.replace(config, temporal=None, environment_width=None)
    with torch.device("meta"):
        twin, unet = _diffusers_twin(image), image.build()
    theirs = {name: tuple(x.shape) for name, x in twin.state_dict().items()}
    assert _exported(unet, stable_diffusion_diffusers(image)) == theirs
    assert len(_exported(unet, stable_diffusion(image))) == len(theirs) == 686


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_trajectory_from_stable_diffusions_weights_is_diffusers() -> None:
    """Every latent of twenty guided steps of DDIM, beside fresh temporal and environment parts."""
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    twin, unet = _diffusers_twin(SMALL), SMALL.build().eval()
    table = stable_diffusion_diffusers(SMALL)
    unet.load_state_dict({_ours(table, k): x for k, x in twin.state_dict().items()}, strict=False)
    z, cond, uncond = torch.randn(1, 4, 16, 16), torch.randn(1, 1, 8), torch.zeros(1, 1, 8)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(20)
    theirs = [z]
    for step in scheduler.timesteps:
        guided, unguided = (twin(theirs[-1], step, prompt).sample for prompt in (cond, uncond))
        epsilon = combine(guided, unguided, 7.5)
        theirs.append(scheduler.step(epsilon, step, theirs[-1]).prev_sample)

    schedule = NoiseSchedule.build()

    def denoise(packed: Tensor, t: int) -> Tensor:
        z_t, now = packed.view(1, 4, 1, 16, 16), torch.tensor([t])
        guided, unguided = (unet(z_t, now, prompt) for prompt in (cond, uncond))
        epsilon = combine(guided, unguided, 7.5)
        alpha, sigma = schedule.alpha(now, 5), schedule.sigma(now, 5)
        return PREDICTIONS["epsilon"].recover(epsilon, z_t, alpha, sigma)[0].flatten(1)

    ours = [z]
    sample_ddim(
        denoise,
        z.flatten(1),
        schedule.timesteps(20, "ldm"),
        schedule,
        callback=lambda _i, _n, _t, z_t, _z0: ours.append(z_t.view_as(z)),
    )
    assert len(ours) == 21
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() < 1e-3 * other.std()


def _ours(table: Table, foreign: str) -> str:
    found = table.ours(foreign)
    assert found is not None
    return found[0]
