"""How the configuration of every kind of part is made small, for laws about all of its forms.

A kind of part that a layout brings needs an entry here: what its own switches are stays, only its
sizes change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.mel import MelCodecConfig
from codi.codecs.optimus import OptimusConfig
from codi.codecs.vocoder import VocoderConfig
from codi.encoders.clap import ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig
from codi.encoders.environment import EnvironmentEncoderConfig, PooledEnvironmentConfig
from codi.encoders.text import TextEncoderConfig
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNetConfig

Draw = Callable[[st.SearchStrategy[Any]], Any]


def _levels(draw: Draw) -> tuple[int, ...]:
    return draw(st.sampled_from([(1,), (1, 2), (1, 1, 2)]))


def _per_level(draw: Draw, levels: tuple[int, ...]) -> tuple[bool, ...]:
    return tuple(draw(st.booleans()) for _ in levels)


def _unet(c: UNetConfig, draw: Draw) -> UNetConfig:
    multipliers = _levels(draw)
    return replace(
        c,
        channels=8 * draw(st.integers(1, 2)),
        multipliers=multipliers,
        attention=(True, *_per_level(draw, multipliers[1:])),  # by which a diffuser is known
        listening=c.listening and (True, *_per_level(draw, multipliers[1:])),
        depth=draw(st.integers(1, 2)),
        context_width=draw(st.integers(2, 6)),
        environment_width=c.environment_width and 4,
        heads=c.heads and 2,
        head_channels=c.head_channels and 4,
        groups=4,
    )


def _text_unet(c: TextUNetConfig, draw: Draw) -> TextUNetConfig:
    unet = _unet(c.unet, draw)
    channels = unet.channels if c.unet.latent_channels == c.unet.channels else 4
    return replace(c, latent_width=6, unet=replace(unet, latent_channels=channels))


def _own_environment(c: EnvironmentEncoderConfig, draw: Draw) -> EnvironmentEncoderConfig:
    widths = (8,) * draw(st.integers(1, 2))
    return replace(c, widths=widths, environment_width=4, groups=4, projection=4)


def _environment(c: PooledEnvironmentConfig, draw: Draw) -> PooledEnvironmentConfig:
    channels = 16 * draw(st.integers(1, 2))
    latent = 6 if c.positions else c.latent_channels
    return replace(
        c,
        latent_channels=latent,
        channels=channels,
        multipliers=_levels(draw),
        environment_width=4,
        groups=4,
    )


def _autoencoder(c: AutoencoderKLConfig, draw: Draw) -> AutoencoderKLConfig:
    multipliers = _levels(draw)
    return replace(
        c,
        channels=8 * draw(st.integers(1, 2)),
        multipliers=multipliers,
        depth=draw(st.integers(1, 2)),
        attention_levels=draw(st.sampled_from([(), (len(multipliers) - 1,)])),
        groups=4,
    )


def _vocoder(c: VocoderConfig, draw: Draw) -> VocoderConfig:
    return replace(c, channels=2 ** len(c.upsample) * draw(st.integers(1, 2)))


def _mel(c: MelCodecConfig, draw: Draw) -> MelCodecConfig:
    return replace(
        c, autoencoder=_autoencoder(c.autoencoder, draw), vocoder=_vocoder(c.vocoder, draw)
    )


def _optimus(c: OptimusConfig, draw: Draw) -> OptimusConfig:
    return replace(
        c,
        encoder_vocabulary=30,
        decoder_vocabulary=20,
        encoder_positions=8,
        decoder_positions=40,
        latent_width=6,
        width=8,
        heads=2,
        hidden=12,
        encoder_layers=draw(st.integers(1, 2)),
        decoder_layers=draw(st.integers(1, 2)),
    )


def _text(c: TextEncoderConfig, draw: Draw) -> TextEncoderConfig:
    return replace(c, width=8 * draw(st.integers(1, 2)), layers=draw(st.integers(1, 2)))


def _clip_text(c: ClipTextConfig, draw: Draw) -> ClipTextConfig:
    width = 8 * draw(st.integers(1, 2))
    return replace(
        c,
        vocabulary=20,
        length=6,
        width=width,
        heads=2,
        layers=draw(st.integers(1, 2)),
        context_width=width if c.sequence else draw(st.integers(2, 6)),
    )


def _clip_vision(c: ClipVisionConfig, draw: Draw) -> ClipVisionConfig:
    return replace(
        c,
        size_px=8,
        patch=4,
        width=16 * draw(st.integers(1, 2)),
        heads=2,
        layers=draw(st.integers(1, 2)),
        context_width=draw(st.integers(2, 6)),
    )


def _clap(c: ClapAudioConfig, draw: Draw) -> ClapAudioConfig:
    return replace(
        c, channels=8, depths=(1, 2), heads=(1, 2), context_width=6, picture=64, classes=5
    )


_SMALLER: dict[type, Callable[[Any, Draw], Any]] = {
    UNetConfig: _unet,
    TextUNetConfig: _text_unet,
    EnvironmentEncoderConfig: _own_environment,
    PooledEnvironmentConfig: _environment,
    AutoencoderKLConfig: _autoencoder,
    VocoderConfig: _vocoder,
    MelCodecConfig: _mel,
    OptimusConfig: _optimus,
    TextEncoderConfig: _text,
    ClipTextConfig: _clip_text,
    ClipVisionConfig: _clip_vision,
    ClapAudioConfig: _clap,
}


def shrunk(config: Any) -> st.SearchStrategy[Any]:
    """Return configurations of the same kind and switches, of a few thousand parameters."""
    smaller = _SMALLER.get(type(config))
    assert smaller is not None, f"tests/convert/small_parts.py lacks {type(config).__name__}"

    @st.composite
    def drawn(draw: Draw) -> Any:
        return smaller(config, draw)

    return drawn()
