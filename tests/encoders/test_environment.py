"""Environment encoders: K slots on one clock."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codi.encoders.environment import EnvironmentEncoder, EnvironmentEncoderConfig
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
