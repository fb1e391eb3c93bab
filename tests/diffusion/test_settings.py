"""Settings of sampling: what is asked for goes before what a model does by itself."""

from __future__ import annotations

from typing import Any

import pytest

from codi.config import ConfigError
from codi.diffusion.settings import doubtful, resolved
from codi.generation import SamplingSettings

OWN: dict[str, Any] = {
    "sampler": "ddim",
    "steps": 50,
    "spacing": "trailing",
    "eta": 0.5,
    "guidance_interval": (200, 800),
    "reuse": 2,
}
SCALES = {"image": 2.0, "audio": 7.5}


def test_what_is_not_asked_for_is_the_models_own() -> None:
    assert resolved(SamplingSettings(), OWN, SCALES, 1000) == OWN | {"guidance": SCALES}


def test_what_is_asked_for_goes_first() -> None:
    asked: dict[str, Any] = {
        "sampler": "dpmpp_2m",
        "steps": 3,
        "spacing": "ldm",
        "eta": 0.0,
        "guidance_interval": (0, 9),
        "reuse": 1,
    }
    found = resolved(SamplingSettings(**asked, guidance={"audio": 1.0}), OWN, SCALES, 1000)
    assert found == asked | {"guidance": {"image": 2.0, "audio": 1.0}}


def test_a_models_own_noise_is_that_of_its_own_sampler() -> None:
    assert resolved(SamplingSettings("dpmpp_2m"), OWN, SCALES, 1000)["eta"] is None
    with pytest.raises(ConfigError, match="eta: euler takes none"):
        resolved(SamplingSettings("euler", eta=0.0), OWN, SCALES, 1000)


@pytest.mark.parametrize("steps", [0, 11])
def test_steps_are_those_of_the_schedule(steps: int) -> None:
    with pytest.raises(ConfigError, match=f"steps = {steps}; give a number from 1 to 10"):
        resolved(SamplingSettings(steps=steps), OWN, SCALES, 10)


@pytest.mark.parametrize("interval", [(200, 2000), (800, 200), (-1, 5)])
def test_guided_steps_are_those_of_the_schedule(interval: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"guidance_interval = .*, from 0 to 1000"):
        resolved(SamplingSettings(guidance_interval=interval), OWN, SCALES, 1000)


def test_what_is_probably_not_meant_is_said() -> None:
    def said(
        noise: bool = True, prompted: bool = True, steered: bool = False, **asked: Any
    ) -> list[str]:
        described = resolved(SamplingSettings(**asked), OWN, SCALES, 1000)
        return doubtful(described, noise, prompted, steered)

    assert said() == []
    assert said(spacing="karras")[0].startswith("spacing karras is not for models that begin")
    assert said(False, spacing="karras") == []
    none = {"audio": 0.0}
    assert said(guidance=none) == ["guidance of audio is 0: it follows no condition"]
    assert said(guidance=none, steered=True)[0].endswith("it follows the negative prompts alone")
    assert said(guidance=none, prompted=False) == []
