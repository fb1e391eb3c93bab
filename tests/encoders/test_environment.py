"""Environment encoders: K slots on one clock."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codi.encoders.environment import (
    EnvironmentEncoder,
    EnvironmentEncoderConfig,
    PooledEnvironmentConfig,
    PooledEnvironmentEncoder,
)
from codi.nn.temporal import TemporalConfig
from tests.small import awake

SHAPES: dict[str, tuple[int, ...]] = {
    "frame": (4, 16, 4, 4),
    "height": (4, 1, 32, 4),
    "none": (4, 1, 8, 8),
    "vector": (16,),
}


def _encoder(kind: str, slots: int = 8) -> EnvironmentEncoder:
    settings: dict[str, object] = {"vector": True} if kind == "vector" else {"time_axis": kind}
    channels = SHAPES[kind][0]
    config = EnvironmentEncoderConfig(channels, slots, 16, (8, 16), 2, **settings)  # type: ignore[arg-type]
    return awake(config.build()).eval()


@pytest.mark.parametrize("slots", [1, 8, 16])
@pytest.mark.parametrize("kind", list(SHAPES))
@torch.no_grad()
def test_every_stream_has_k_slots_of_width_e(kind: str, slots: int) -> None:
    environment = _encoder(kind, slots)(torch.randn(3, *SHAPES[kind]), torch.tensor([0, 5, 1000]))
    assert environment.shape == (3, slots, 16)


@pytest.mark.parametrize("kind", list(SHAPES))
@torch.no_grad()
def test_the_noise_level_is_known(kind: str) -> None:
    z = torch.randn(1, *SHAPES[kind])
    early, late = (_encoder(kind)(z, torch.tensor([t])) for t in (1, 900))
    assert not torch.allclose(early, late, atol=1e-5)


def _slots_that_change(kind: str, before: Tensor, after: Tensor) -> Tensor:
    """Return how much each slot (K,) differs between two latents."""
    encoder, t = _encoder(kind), torch.tensor([0])
    difference = encoder(before, t) - encoder(after, t)
    return difference.abs().sum(-1)[0]


@pytest.mark.parametrize("frame", [1, 6, 11, 14])
@torch.no_grad()
def test_an_event_in_a_frame_changes_the_slot_of_its_time(frame: int) -> None:
    quiet = torch.zeros(1, *SHAPES["frame"])
    event = quiet.clone()
    event[:, :, frame] = torch.randn(4, 4, 4)
    changed = _slots_that_change("frame", quiet, event)
    assert (changed.argmax() - frame // 2).abs() <= 1


@torch.no_grad()
def test_an_event_in_the_sound_changes_the_slot_of_its_time() -> None:
    first, second = (torch.zeros(1, *SHAPES["height"]) for _ in range(2))
    first[:, :, :, 5] = 2.0
    second[:, :, :, 27] = 2.0
    quiet = torch.zeros(1, *SHAPES["height"])
    early = _slots_that_change("height", quiet, first)
    late = _slots_that_change("height", quiet, second)
    assert early[:4].sum() > early[4:].sum()
    assert late[4:].sum() > late[:4].sum()


@pytest.mark.parametrize("kind", ["none", "vector"])
@torch.no_grad()
def test_a_stream_without_time_says_the_same_in_every_slot(kind: str) -> None:
    environment = _encoder(kind)(torch.randn(2, *SHAPES[kind]), torch.tensor([3, 4]))
    torch.testing.assert_close(environment, environment[:, :1].expand_as(environment))


@torch.no_grad()
def test_an_image_is_a_clip_without_time() -> None:
    environment = _encoder("frame")(torch.randn(2, 4, 1, 4, 4), torch.tensor([3, 4]))
    torch.testing.assert_close(environment, environment[:, :1].expand_as(environment))


@torch.no_grad()
def test_the_projection_is_a_unit_vector_that_forgets_time() -> None:
    encoder, environment = _encoder("frame"), torch.randn(2, 8, 16)
    projected = encoder.project(environment)
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(projected, encoder.project(environment.flip(1)))


# --- the released CoDi's ---


def _pooled(kind: str, **changes: object) -> PooledEnvironmentEncoder:
    config = PooledEnvironmentConfig(
        latent_channels=SHAPES[kind][0],
        environment_width=12,
        channels=16,
        multipliers=(1, 2),
        positions=2 if kind == "vector" else None,
        temporal=TemporalConfig(heads=2) if kind == "frame" else None,
        **changes,  # type: ignore[arg-type]
    )
    return awake(config.build()).eval()


@pytest.mark.parametrize("kind", list(SHAPES))
@torch.no_grad()
def test_a_pooled_environment_is_one_unit_vector(kind: str) -> None:
    encoder, z, t = _pooled(kind), torch.randn(3, *SHAPES[kind]), torch.tensor([0, 5, 1000])
    environment = encoder(z, t, torch.randn(3, 64))
    assert environment.shape == (3, encoder.config.slots, 12) == (3, 1, 12)
    torch.testing.assert_close(environment.norm(dim=-1), torch.ones(3, 1))
    torch.testing.assert_close(encoder.project(environment), environment[:, 0])


@pytest.mark.parametrize("kind", list(SHAPES))
@torch.no_grad()
def test_a_pooled_environment_hears_its_latent_and_the_step_it_is_given(kind: str) -> None:
    encoder, z, t = _pooled(kind), torch.randn(1, *SHAPES[kind]), torch.tensor([5])
    first, second = torch.randn(1, 64), torch.randn(1, 64)
    before = encoder(z, t, first)
    assert not torch.allclose(before, encoder(z, t, second), atol=1e-5)
    assert not torch.allclose(before, encoder(z + torch.rand_like(z), t, first), atol=1e-5)
    assert torch.equal(before, encoder(z, t + 1, first))  # which the step says already


def test_a_pooled_environment_stores_no_step_embedding() -> None:
    assert _pooled("none").shares_step
    assert not any("step_embedding" in name for name in _pooled("none").state_dict())


def test_every_level_of_a_pooled_environment_needs_its_blocks() -> None:
    assert [len(blocks) for blocks in _pooled("none", depth=(2, 1)).blocks] == [2, 1]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth names 3 levels and multipliers 2"):
        _pooled("none", depth=(1, 1, 1))


@pytest.mark.parametrize(
    ("kind", "shape", "slots", "tells"),
    [
        ("frame", (4, 16, 4, 4), 8, True),
        ("frame", (4, 1, 4, 4), 8, False),
        ("frame", (4, 16, 4, 4), 1, False),
        ("height", (4, 1, 32, 4), 8, True),
        ("none", (4, 1, 8, 8), 8, False),
        ("vector", (16,), 8, False),
    ],
)
@torch.no_grad()
def test_slots_tell_time_where_the_latent_has_it(
    kind: str, shape: tuple[int, ...], slots: int, tells: bool
) -> None:
    encoder, z_t = _encoder(kind, slots), torch.randn(2, *shape)
    assert encoder.tells_time(z_t) == tells
    environment = encoder(z_t, torch.tensor([3, 4]))
    projected = encoder.project_slots(environment)
    assert projected.shape == (2, slots, 64)
    torch.testing.assert_close(projected.norm(dim=-1), torch.ones(2, slots))
    spread = environment.amax(1) - environment.amin(1)
    assert bool(spread.max() > 1e-5) == tells
