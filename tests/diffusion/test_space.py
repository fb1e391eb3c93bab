"""Laws of the product space and of keyed noise."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.diffusion import Noise, NoiseSource, ProductSpace

shapes = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.lists(st.integers(1, 4), max_size=4).map(tuple),
    min_size=1,
    max_size=4,
)
seeds = st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=3)


@given(shapes=shapes, batch=st.integers(1, 3))
def test_pack_and_unpack_are_inverse(shapes: dict[str, tuple[int, ...]], batch: int) -> None:
    space = ProductSpace(shapes)
    latents = {name: torch.randn(batch, *shape) for name, shape in shapes.items()}
    z = space.pack(dict(reversed(latents.items())))
    assert z.shape == (batch, space.size)
    found = space.unpack(z)
    assert list(found) == list(shapes)
    for name, latent in latents.items():
        assert torch.equal(found[name], latent)
        assert torch.equal(z[:, space.slices[name]], latent.reshape(batch, -1))
    assert torch.equal(space.pack(found), z)


def test_unpacked_latents_are_views() -> None:
    space = ProductSpace({"a": (2,), "b": (3, 1)})
    z = torch.zeros(2, 5)
    space.unpack(z)["b"].fill_(1.0)
    assert z.sum() == 6


def test_a_space_does_not_change_with_the_dict_it_was_made_of() -> None:
    shapes: dict[str, tuple[int, ...]] = {"a": (2,)}
    space = ProductSpace(shapes)
    shapes["b"] = (3,)
    assert space.size == 2


def test_spaces_of_another_order_are_different_spaces() -> None:
    first = ProductSpace({"a": (2,), "b": (3,)})
    second = ProductSpace({"b": (3,), "a": (2,)})
    assert first != second
    assert list(copy.deepcopy(first).shapes) == ["a", "b"]


def test_wrong_latents_are_refused_with_what_is_needed() -> None:
    space = ProductSpace({"a": (2,), "b": (3,)})
    a, b = torch.zeros(4, 2), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"needed are \['a', 'b'\]"):
        space.pack({"a": a})
    with pytest.raises(ValueError, match=r"'b' has shape \(4, 2\); needed is \(4, 3\)"):
        space.pack({"a": a, "b": a})
    with pytest.raises(ValueError, match=r"needed is \(4, 3\)"):
        space.pack({"a": a, "b": b[:1]})
    with pytest.raises(ValueError, match=r"needed \(B, 5\)"):
        space.unpack(a)
    with pytest.raises(ValueError, match="at least one"):
        ProductSpace({})
    with pytest.raises(ValueError, match="positive"):
        ProductSpace({"a": (2, 0)})


@given(seeds=seeds, index=st.integers(0, 1000))
def test_a_sample_does_not_depend_on_its_batch(seeds: list[int], index: int) -> None:
    batch = Noise(seeds).draw("a", (2, 3), index)
    for i, seed in enumerate(seeds):
        assert torch.equal(batch[i], Noise([seed]).draw("a", (2, 3), index)[0])


def test_one_more_name_changes_nothing() -> None:
    noise = Noise([3, 4])
    alone = ProductSpace({"a": (5,)})
    joint = ProductSpace({"b": (2, 2), "a": (5,)})
    drawn = joint.unpack(NoiseSource(noise, joint)(6))
    assert torch.equal(drawn["a"], NoiseSource(noise, alone)(6))


def test_every_part_of_the_key_counts() -> None:
    draws = [
        Noise([seed]).draw(name, (4,), index)
        for seed in (0, 1, -1, 2**32, 2**64)
        for name in ("a", "b", "1")
        for index in (0, 1, 11)
    ]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)


def test_noise_is_standard_normal_and_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    source = NoiseSource(Noise(range(4)), ProductSpace({"a": (20_000,), "b": (100, 100)}))
    z = torch.stack([source(0), source(1)])
    assert torch.equal(torch.get_rng_state(), before)
    assert z.dtype == torch.float32
    assert float(z.mean()) == pytest.approx(0, abs=0.01)
    assert float(z.std()) == pytest.approx(1, abs=0.01)
    assert float(z.pow(4).mean()) == pytest.approx(3, abs=0.1)
    # Samples and draws are uncorrelated.
    correlation = torch.corrcoef(z.flatten(0, 1))
    assert float((correlation - torch.eye(8)).abs().max()) < 0.03


def test_noise_stays_the_same_from_one_release_to_the_next() -> None:
    # Seeds are promises to users: these numbers may only change with a note in the changelog.
    expected = torch.tensor([[-1.42593, -3.731594, -0.3203496]])
    torch.testing.assert_close(Noise([0]).draw("image", (3,), 0), expected)


def test_noise_needs_a_seed() -> None:
    with pytest.raises(ValueError, match="one seed per sample"):
        Noise([])
