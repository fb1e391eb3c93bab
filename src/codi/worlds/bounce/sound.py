"""Let a scene sound: every impact strikes a body whose modes ring and die away.

The material sets the ratios, strengths and decays of the modes; the size sets the pitch. Knows
nothing of pictures or words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codi.worlds.bounce.scene import SAMPLE_RATE_HZ, SAMPLES, Scene

PITCH_HZ = {"small": 1040.0, "medium": 590.0, "large": 335.0}
"""Frequency of the lowest mode for each size."""
PEAK = 0.5
NOISE_FLOOR = 0.0004
_RINGING_SAMPLES = 8_000


@dataclass(frozen=True)
class Timbre:
    """How a material rings.

    Attributes:
        ratios: frequencies of the modes over the lowest one.
        strengths: amplitudes of the modes.
        decays_s: times in which each mode falls by 60 dB, at most 0.5 s.
        attack_s: time to full strength.
        click: amplitude of the short burst of noise at the contact.
        glide: by how much the pitch is higher at the contact, as a fraction.
    """

    ratios: tuple[float, ...]
    strengths: tuple[float, ...]
    decays_s: tuple[float, ...]
    attack_s: float
    click: float
    glide: float = 0.0


TIMBRES = {
    "metal": Timbre(
        (1.0, 2.76, 4.1, 5.4), (1.0, 0.8, 0.45, 0.6), (0.5, 0.5, 0.45, 0.4), 0.0006, 0.25
    ),
    "wood": Timbre((1.0, 2.3, 3.6), (1.0, 0.45, 0.2), (0.18, 0.1, 0.06), 0.001, 0.7),
    "glass": Timbre(
        (1.0, 2.05, 3.4, 6.2), (0.25, 0.5, 0.9, 1.0), (0.3, 0.32, 0.34, 0.34), 0.0004, 0.15
    ),
    "rubber": Timbre((0.5, 1.0), (0.45, 1.0), (0.26, 0.3), 0.005, 0.0, 0.16),
}
"""The sound of every material; all modes lie below 7 kHz."""


def strike(material: str, pitch_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Return the sound (8000,) of one impact, with a peak of 1."""
    timbre = TIMBRES[material]
    t = np.arange(_RINGING_SAMPLES) / SAMPLE_RATE_HZ
    turns = pitch_hz * (t - timbre.glide * 0.04 * np.expm1(-t / 0.04))
    ringing = np.zeros_like(t)
    for ratio, strength, decay_s in zip(
        timbre.ratios, timbre.strengths, timbre.decays_s, strict=True
    ):
        length = min(int(1.2 * decay_s * SAMPLE_RATE_HZ), len(t))
        envelope = strength * np.exp(-6.91 * t[:length] / decay_s)
        ringing[:length] += envelope * np.sin(2.0 * np.pi * ratio * turns[:length])
    ringing *= -np.expm1(-t / timbre.attack_s)
    burst = int(0.012 * SAMPLE_RATE_HZ)
    noise = rng.uniform(-1.0, 1.0, burst)
    ringing[:burst] += timbre.click * noise * np.exp(-t[:burst] / 0.002)
    ringing[-256:] *= np.linspace(1.0, 0.0, 256)
    return np.asarray(ringing / np.abs(ringing).max())


def render_audio(scene: Scene) -> np.ndarray:
    """Return the sound (32000,), float32, 16 kHz; the faster an impact, the louder."""
    rng = np.random.default_rng(scene.seed)
    samples = NOISE_FLOOR * rng.standard_normal(SAMPLES, dtype=np.float32)
    speeds = scene.impact_speeds_px_s()
    sound = strike(scene.facts["material"], PITCH_HZ[scene.facts["size"]] * scene.pitch, rng)
    for impact_s, speed in zip(scene.impact_times_s, speeds, strict=True):
        start = round(impact_s * SAMPLE_RATE_HZ)
        length = min(len(sound), SAMPLES - start)
        samples[start : start + length] += PEAK * speed / speeds[0] * sound[:length]
    return samples.clip(-1.0, 1.0)
