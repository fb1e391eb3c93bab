"""Laws of the noise schedules and of their steps."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.diffusion import BETAS, SPACINGS, NoiseSchedule

KINDS = list(BETAS)

# alphas_cumprod of the released checkpoint, float64, by its own index 0..999 (our t is one more).
RELEASE_ALPHAS_CUMPROD = {
    0: 0.99915,
    1: 0.9982960278384514,
    9: 0.9913210885345622,
    99: 0.8954627734950016,
    249: 0.6754324137251241,
    499: 0.27766965045646763,
    749: 0.056623491598269717,
    998: 0.004716698899875748,
    999: 0.004660098513077238,
}


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_process_preserves_variance_and_only_adds_noise(
    kind: str, zero_terminal_snr: bool
) -> None:
    schedule = NoiseSchedule.build(kind, zero_terminal_snr=zero_terminal_snr)
    power = schedule.alphas.square() + schedule.sigmas.square()
    torch.testing.assert_close(power, torch.ones(schedule.T + 1))
    assert (schedule.alpha_bar.diff() < 0).all()
    assert schedule.alphas.dtype == schedule.sigmas.dtype == torch.float32
    assert schedule.level(0) == (1.0, 0.0)
    assert float(schedule.alphas[0]) == 1.0
    assert float(schedule.sigmas[0]) == 0.0


@pytest.mark.parametrize("index", RELEASE_ALPHAS_CUMPROD)
def test_scaled_linear_is_the_schedule_of_the_release(index: int) -> None:
    alpha_bar = NoiseSchedule.build("scaled_linear").alpha_bar
    assert float(alpha_bar[index + 1]) == pytest.approx(RELEASE_ALPHAS_CUMPROD[index], rel=1e-12)


def test_linear_is_the_schedule_of_ddpm() -> None:
    schedule = NoiseSchedule.build("linear", beta_start=1e-4, beta_end=0.02)
    # log of prod(1 - beta) by its series; Ho et al. 2020 quote about 4e-5 for the last level.
    beta = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    assert float(schedule.alpha_bar[-1].log()) == pytest.approx(
        math.fsum(math.log1p(-b) for b in beta)
    )
    assert float(schedule.alpha_bar[-1]) == pytest.approx(4.04e-5, rel=0.01)


def test_cosine_follows_its_closed_form_where_beta_is_not_clipped() -> None:
    schedule = NoiseSchedule.build("cosine", steps=1000)

    def level(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (1, 250, 500, 900):
        expected = level(t / 1000) / level(0)
        assert float(schedule.alpha_bar[t]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_terminal_snr_moves_the_end_and_keeps_the_beginning(kind: str) -> None:
    usual = NoiseSchedule.build(kind)
    zero = NoiseSchedule.build(kind, zero_terminal_snr=True)
    assert zero.level(1000) == (0.0, 1.0)
    assert zero.level(1)[0] == pytest.approx(usual.level(1)[0], rel=1e-12)
    assert usual.level(1000)[0] > 0


def test_look_ups_agree_and_take_the_shape_asked_for() -> None:
    schedule = NoiseSchedule.build()
    t = torch.tensor([0, 1, 500, 1000])
    assert schedule.alpha(t, ndim=4).shape == (4, 1, 1, 1)
    assert schedule.sigma(t).shape == (4,)
    for i, step in enumerate(t.tolist()):
        alpha, sigma = schedule.level(step)
        assert float(schedule.alpha(t)[i]) == pytest.approx(alpha)
        assert float(schedule.sigma(t)[i]) == pytest.approx(sigma)
    assert schedule.snr(t)[0] == torch.inf
    torch.testing.assert_close(
        schedule.snr(t)[1:], (schedule.alpha(t) / schedule.sigma(t)).square()[1:]
    )
    moved = schedule.to("cpu")
    assert torch.equal(moved.alpha(t), schedule.alpha(t))


def test_add_noise_has_the_mean_and_deviation_of_the_process() -> None:
    schedule = NoiseSchedule.build()
    z0 = torch.full((3, 50_000), 2.0)
    t = torch.tensor([0, 300, 1000])
    z_t = schedule.add_noise(z0, torch.randn_like(z0), t)
    torch.testing.assert_close(z_t.mean(1), 2 * schedule.alpha(t), atol=0.02, rtol=0)
    torch.testing.assert_close(z_t.std(1), schedule.sigma(t), atol=0.01, rtol=0.01)
    assert torch.equal(z_t[0], z0[0])


@given(
    spacing=st.sampled_from(list(SPACINGS)),
    steps=st.integers(1, 60),
    kind=st.sampled_from(KINDS),
    data=st.data(),
)
def test_every_spacing_gives_distinct_steps_within_the_schedule(
    spacing: str, steps: int, kind: str, data: st.DataObject
) -> None:
    zero = data.draw(st.booleans()) and steps > 1
    schedule = NoiseSchedule.build(kind, steps=steps, zero_terminal_snr=zero)
    count = data.draw(st.integers(1, steps))
    timesteps = schedule.timesteps(count, spacing)
    assert len(timesteps) == count + 1
    assert timesteps[-1] == (1 if spacing == "ldm" and timesteps[-2] > 1 else 0)
    assert all(isinstance(t, int) for t in timesteps)
    assert all(t > s for t, s in pairwise(timesteps))
    assert timesteps[0] <= steps
    if spacing not in ("leading", "ldm"):
        assert timesteps[0] == steps


@pytest.mark.parametrize("spacing", SPACINGS)
def test_all_steps_is_every_step(spacing: str) -> None:
    assert NoiseSchedule.build(steps=40).timesteps(40, spacing) == list(range(40, -1, -1))


def test_spacings_of_the_literature() -> None:
    schedule = NoiseSchedule.build()
    # The release steps 1, 21, ..., 981 of 0..999; ours are one more.
    assert schedule.timesteps(50, "leading") == [*range(982, 0, -20), 0]
    # Its last move ends at the lowest noise level, which it takes for clean data.
    assert schedule.timesteps(50, "ldm") == [*range(982, 0, -20), 1]
    # Lin et al. 2023, Table 2 (their 1-based steps).
    assert schedule.timesteps(10, "trailing") == list(range(1000, -1, -100))
    assert schedule.timesteps(10, "linspace")[:-1] == list(range(1000, 0, -111))


@pytest.mark.parametrize("count", [7, 10, 20, 25, 30, 50, 100, 300])
def test_ldm_spacing_is_latent_diffusions_cut_to_the_moves_asked_for(count: int) -> None:
    theirs = [t + 2 for t in range(0, 1000, 1000 // count)]  # their own + 1, and they count from 0
    ours = NoiseSchedule.build().timesteps(count, "ldm")[:-1]
    assert ours == theirs[:count][::-1]
    assert (len(theirs) == count) == (1000 % count == 0)


def test_karras_spacing_is_even_in_the_seventh_root_of_the_noise_ratio() -> None:
    schedule = NoiseSchedule.build()
    timesteps = schedule.timesteps(12, "karras")[:-1]
    levels = [schedule.level(t) for t in timesteps]
    roots = [(sigma / alpha) ** (1 / 7) for alpha, sigma in levels]
    widths = [a - b for a, b in pairwise(roots)]
    assert timesteps[0] == 1000
    assert timesteps[-1] == 1
    assert max(widths) / min(widths) < 1.25  # whole steps; 1 without rounding


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"kind": "sine"}, "scaled_linear"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 1, "zero_terminal_snr": True}, "at least 2"),
        ({"beta_start": 0.0}, "0 < beta_start"),
        ({"beta_end": 1.0}, "beta_end < 1"),
    ],
)
def test_bad_settings_are_refused_with_the_mend(settings: dict[str, object], mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        NoiseSchedule.build(**settings)  # type: ignore[arg-type]


def test_bad_steps_are_refused_with_the_mend() -> None:
    schedule = NoiseSchedule.build(steps=10)
    with pytest.raises(ValueError, match=r"choose 1\.\.10"):
        schedule.timesteps(11)
    with pytest.raises(ValueError, match="trailing"):
        schedule.timesteps(5, "even")
    for t in (-1, 11):
        with pytest.raises(ValueError, match=r"0\.\.10"):
            schedule.level(t)
        with pytest.raises(ValueError, match=r"0\.\.10"):
            schedule.alpha(torch.tensor([t]))
    with pytest.raises(ValueError, match="integer"):
        schedule.alpha(torch.tensor([0.5]))
