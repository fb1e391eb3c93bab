"""Laws of classifier-free guidance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.diffusion import GuidanceRule, combine, rescale


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    return drawn[0], 2 * drawn[1] + 1


@given(seed=st.integers(0, 2**31), scale=st.floats(-2, 12))
def test_guidance_is_the_line_through_both_predictions(seed: int, scale: float) -> None:
    cond, uncond = pair(seed)
    assert torch.equal(combine(cond, uncond, 1.0), cond)
    assert torch.equal(combine(cond, uncond, 0.0), uncond)
    torch.testing.assert_close(combine(cond, cond, scale), cond)
    torch.testing.assert_close(combine(cond, uncond, scale), scale * cond + (1 - scale) * uncond)


@given(seed=st.integers(0, 2**31), phi=st.floats(0, 1))
def test_rescale_interpolates_the_deviation_of_each_sample(seed: int, phi: float) -> None:
    cond, guided = pair(seed)
    axes = (1, 2)
    expected = phi * cond.std(axes) + (1 - phi) * guided.std(axes)
    torch.testing.assert_close(rescale(guided, cond, phi).std(axes), expected)
    # A sample does not depend on its batch.
    torch.testing.assert_close(rescale(guided[:1], cond[:1], phi), rescale(guided, cond, phi)[:1])


def test_rescale_of_a_constant_is_the_constant() -> None:
    guided = torch.full((2, 4), 3.0)
    assert torch.equal(rescale(guided, torch.randn(2, 4), 1.0), guided)


@given(seed=st.integers(0, 2**31), t=st.integers(0, 1000))
def test_a_rule_is_exactly_the_condition_where_it_is_not_active(seed: int, t: int) -> None:
    cond, uncond = pair(seed)
    rule = GuidanceRule(scale=3.0, rescale=0.7, interval=(200, 600))
    assert rule.active(t) == (200 <= t <= 600)
    guided = rule.apply(cond, uncond, t)
    if rule.active(t):
        expected = rescale(combine(cond, uncond, 3.0), cond, 0.7)
        torch.testing.assert_close(guided, expected)
    else:
        assert torch.equal(guided, cond)
    assert torch.equal(GuidanceRule(scale=1.0, rescale=0.7).apply(cond, uncond, t), cond)


def test_without_an_interval_every_step_is_guided() -> None:
    assert all(GuidanceRule(scale=2.0).active(t) for t in range(1001))


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"rescale": 1.5}, "0 .off. to 1"),
        ({"interval": (5, 2)}, "low <= high"),
        ({"interval": (-1, 2)}, "0 <= low"),
    ],
)
def test_bad_rules_are_refused_with_the_mend(settings: dict[str, object], mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        GuidanceRule(scale=2.0, **settings)  # type: ignore[arg-type]
