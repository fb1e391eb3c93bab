"""Settings of sampling: what is asked for, filled in with a model's own, and refused if impossible.

Streams are names here, whatever they carry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from codi.config import ConfigError, unknown
from codi.diffusion.sampling import SAMPLERS, TAKES_ETA
from codi.diffusion.schedule import SPACINGS
from codi.generation import SamplingSettings


def resolved(
    settings: SamplingSettings, own: Mapping[str, Any], guidance: Mapping[str, float], T: int
) -> dict[str, Any]:
    """Return all settings by their names, guidance as a scale for each stream.

    Args:
        settings: what is asked for.
        own: what the model does where they are None, by the same names.
        guidance: the model's own scale of each stream that is made.
        T: steps of the schedule.

    Raises:
        ConfigError: a setting that no model, or not this one, can do.
    """
    steps = own["steps"] if settings.steps is None else settings.steps
    if not 1 <= steps <= T:
        raise ConfigError(f"steps = {steps}; give a number from 1 to {T}")
    interval = settings.guidance_interval or own["guidance_interval"]
    if interval is not None and not 0 <= interval[0] <= interval[1] <= T:
        raise ConfigError(
            f"guidance_interval = {list(interval)}; give the lowest and the highest step t "
            f"that are guided, from 0 to {T}"
        )
    reuse = own["reuse"] if settings.reuse is None else settings.reuse
    if reuse < 1:
        raise ConfigError(f"reuse = {reuse}; give 1 (none) or more evaluations")
    spacing = settings.spacing or own["spacing"]
    if spacing not in SPACINGS:
        raise ConfigError(unknown("spacing", spacing, SPACINGS))
    name = settings.sampler or own["sampler"]
    if name not in SAMPLERS:
        raise ConfigError(unknown("sampler", name, SAMPLERS))
    eta = settings.eta
    if eta is None and name == own["sampler"] and own["eta"]:
        eta = own["eta"]
    if settings.eta is not None and name in SAMPLERS.keys() - TAKES_ETA:
        takers = " or ".join(sorted(TAKES_ETA))
        raise ConfigError(f"eta: {name} takes none; leave it out, or use the sampler {takers}")
    return {
        "sampler": name,
        "steps": steps,
        "spacing": spacing,
        "eta": eta,
        "guidance": _scales(settings.guidance, guidance),
        "guidance_interval": interval,
        "reuse": reuse,
    }


def doubtful(
    described: Mapping[str, Any], zero_terminal_snr: bool, prompted: bool, steered: bool
) -> list[str]:
    """Return a line for each setting that can be done, and is probably not what was meant.

    Args:
        described: what `resolved` returned.
        zero_terminal_snr: whether the schedule ends in pure noise.
        prompted: whether there are conditions to follow.
        steered: whether there are negative prompts.
    """
    followed = "the negative prompts alone" if steered else "no condition"
    said = [
        f"guidance of {name} is 0: it follows {followed}"
        for name, scale in described["guidance"].items()
        if scale == 0 and (prompted or steered)
    ]
    if described["spacing"] == "karras" and zero_terminal_snr:
        said.append(
            "spacing karras is not for models that begin in pure noise, as this one does: it makes "
            "worse samples; trailing is meant for it"
        )
    return said


def _scales(
    given: float | Mapping[str, float] | None, own: Mapping[str, float]
) -> dict[str, float]:
    wanted = given if isinstance(given, Mapping) else dict.fromkeys(own, given)
    for name in wanted:
        if name not in own:
            raise ConfigError(unknown("modality to guide:", name, own))
    scales = {**own, **{name: scale for name, scale in wanted.items() if scale is not None}}
    for name, scale in scales.items():
        if not math.isfinite(scale):
            raise ConfigError(f"guidance of {name} is {scale}; give a finite number, such as 3")
    return scales
