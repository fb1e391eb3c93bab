"""Configuration -> model: the one place where codecs, encoders, diffusers and environments meet."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.base import Codec
from codi.codecs.mel import MelCodecConfig
from codi.codecs.optimus import OptimusConfig
from codi.codecs.text_vae import TextVAEConfig
from codi.config import ConfigError, build, load_toml, override, unknown
from codi.diffusion import NoiseSchedule
from codi.encoders.base import PromptEncoder
from codi.encoders.clap import ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig
from codi.encoders.environment import EnvironmentEncoderConfig, PooledEnvironmentConfig
from codi.encoders.sound import SoundEncoderConfig
from codi.encoders.text import TextEncoderConfig
from codi.encoders.vision import VisionEncoderConfig
from codi.folders import PRESETS
from codi.media import atomic_write_bytes
from codi.modalities import MediaType, modality
from codi.model import CoDi
from codi.types import Shares
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNetConfig

KINDS: dict[str, Any] = {
    "autoencoder_kl": AutoencoderKLConfig,
    "mel": MelCodecConfig,
    "text_vae": TextVAEConfig,
    "optimus": OptimusConfig,
    "text_encoder": TextEncoderConfig,
    "vision_encoder": VisionEncoderConfig,
    "sound_encoder": SoundEncoderConfig,
    "clip_text": ClipTextConfig,
    "clip_vision": ClipVisionConfig,
    "clap_audio": ClapAudioConfig,
    "environment": EnvironmentEncoderConfig,
    "pooled_environment": PooledEnvironmentConfig,
    "unet": UNetConfig,
    "text_unet": TextUNetConfig,
}
"""Configuration class of every part, by the `kind` a preset names. Add your own here."""

FILE_KEYS = ("tokenizer", "encoder_tokenizer", "decoder_tokenizer")
"""Settings of parts that name a file or folder without which the part's weights are of no use."""

ROLES = ("codecs", "encoders", "environments", "diffusers")
"""The four roles a part can have; also the sections of a preset."""


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule all streams share (CoDi, Table 12)."""

    kind: str = "scaled_linear"
    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.0120
    zero_terminal_snr: bool = False

    def build(self) -> NoiseSchedule:
        """Return the schedule."""
        return NoiseSchedule.build(**dataclasses.asdict(self))


@dataclass(frozen=True)
class SamplingConfig:
    """How a preset samples when the user does not say.

    `guidance_interval` is the first and last step t that are guided, both included; all by default.
    `reuse` is how many evaluations use the inside of a diffuser that was computed once.
    """

    sampler: str = "ddim"
    steps: int = 50
    spacing: str = "trailing"
    eta: float = 0.0
    guidance_interval: tuple[int, int] | None = None
    reuse: int = 1


@dataclass(frozen=True)
class ModalityConfig:
    """Which parts a modality is made of, and how its stream is denoised.

    Attributes:
        latent: shape of one latent, without the batch.
        media: settings of its `MediaType`.
        codec, encoder, environment, diffuser: names of parts. Two modalities may name the same one
            (image and video share the vision UNet); without a diffuser it is input only.
        prediction: what its diffuser predicts; guidance, rescale: classifier-free guidance.
    """

    latent: tuple[int, ...]
    media: dict[str, Any]
    codec: str | None = None
    encoder: str | None = None
    environment: str | None = None
    diffuser: str | None = None
    prediction: str = "epsilon"
    guidance: float = 2.0
    rescale: float = 0.0

    def part(self, role: str) -> str | None:
        """Return the name of the part in `role` (one of `ROLES`)."""
        return getattr(self, role.removesuffix("s"))


@dataclass(frozen=True)
class ModelConfig:
    """A whole model, as a preset describes it.

    `wiring` says whose environment a stream attends to: that of the "others" (the paper), or, for
    the checkpoints of the released CoDi, its "own"; `interpolation`, how those of several streams
    become one: their "mean" (the paper), or "timed", which keeps instants whole (ADR 10).
    """

    name: str
    modalities: dict[str, ModalityConfig]
    schedule: ScheduleConfig = ScheduleConfig()
    sampling: SamplingConfig = SamplingConfig()
    wiring: Literal["others", "own"] = "others"
    interpolation: Literal["mean", "timed"] = "mean"
    codecs: dict[str, dict[str, Any]] = field(default_factory=dict)
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    diffusers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def part(self, role: str, name: str) -> Any:
        """Return the configuration of one part, an instance of its kind's class.

        Raises:
            ConfigError: no such part, no `kind`, or an unknown one.
        """
        tables: Mapping[str, dict[str, Any]] = getattr(self, role)
        if name not in tables:
            raise ConfigError(f"{self.name}: " + unknown(f"part in [{role}]", name, tables))
        table = dict(tables[name])
        kind = table.pop("kind", "")
        if kind not in KINDS:
            raise ConfigError(f"{self.name}: [{role}.{name}] " + unknown("kind", kind, KINDS))
        return build(KINDS[kind], table, f"{self.name}: {role}.{name}")

    def parts(self, roles: Iterable[str] = ROLES, of: Collection[str] | None = None) -> list[str]:
        """Return "role.part" of every part that the modalities `of` (all) use in `roles`."""
        chosen = [self.modality(m) for m in (self.modalities if of is None else of)]
        found = ((role, m.part(role)) for role in roles for m in chosen)
        return list(dict.fromkeys(f"{role}.{part}" for role, part in found if part))

    def step_sharers(self, of: Collection[str]) -> list[str]:
        """Return "role.part" of diffusers whose step embedding the environments of `of` share."""
        sharing = [m for m in of if self._shares_step(self.modality(m).environment)]
        return self.parts(("diffusers",), sharing)

    def sampling_parts(
        self, prompts: Collection[str], streams: Collection[str], kept: Collection[str] = ()
    ) -> list[str]:
        """Return "role.part" of all that sampling uses: what a request needs between its codecs.

        Args:
            prompts: modalities of its conditions.
            streams: of all that denoise together.
            kept: those of them that are given.
        """
        found = self.parts(("encoders",), prompts)
        found += self.parts(("diffusers",), [name for name in streams if name not in kept])
        if len(streams) > 1:
            found += self.parts(("environments",), streams) + self.step_sharers(streams)
        return found

    def _shares_step(self, environment: str | None) -> bool:
        return environment is not None and getattr(
            self.part("environments", environment), "shares_step", False
        )

    def modality(self, name: str) -> ModalityConfig:
        """Return the entry of a modality.

        Raises:
            ConfigError: this model does not have it.
        """
        if name not in self.modalities:
            raise ConfigError(unknown(f"modality of model {self.name!r}:", name, self.modalities))
        return self.modalities[name]

    def media(self, name: str) -> MediaType:
        """Return the media type of a modality with this model's sizes and rates."""
        where = f"{self.name}: modalities.{name}.media"
        return build(modality(name).media_class(), self.modality(name).media, where)

    @property
    def generated(self) -> list[str]:
        """Return the names of the modalities that can be generated."""
        return [name for name, m in self.modalities.items() if m.diffuser]


def load_config(name_or_file: str | Path, assignments: Iterable[str] = ()) -> ModelConfig:
    """Read a model's configuration: a preset's name, a TOML file, or a folder with `config.toml`.

    Files that its parts name (`FILE_KEYS`) are looked for beside the TOML file first, and only
    there where the name begins with "./".

    Raises:
        ConfigError: no such preset or file (names the nearest preset), or a mistake in it.
    """
    path = Path(name_or_file)
    candidates = (path / "config.toml", path, PRESETS / f"{name_or_file}.toml")
    for candidate in candidates:
        if candidate.is_file():
            table = _found_beside(candidate, load_toml(candidate))
            return build(ModelConfig, override(table, assignments), candidate)
    presets = [p.stem for p in sorted(PRESETS.glob("*.toml")) if not p.stem.startswith("recipe-")]
    raise ConfigError(unknown("model", str(name_or_file), presets))


_SHARES: Shares = {
    "environment attention": ("*environment_attention.*",),
    "temporal blocks": ("*temporal.*",),
    "temporal blocks/frame shift": ("*temporal.shift_*",),
}
"""Those of parts whose configuration names no `shares` of its own."""


def _found_beside(file: Path, table: dict[str, Any]) -> dict[str, Any]:
    """Return a model's table in which files that lie beside its TOML file have their whole path."""
    if file.parent == PRESETS:  # what ships goes by its name alone
        return table

    def found(_part: str, _key: str, value: str) -> str:
        path = file.parent / value
        return str(path) if path.exists() or value.startswith("./") else value

    return _with_files(table, found)


def with_files_in(config: ModelConfig, folder: Path) -> ModelConfig:
    """Copy the files that a model's parts name into its folder, so that it can be moved.

    Returns:
        The configuration that names them there, relative to the folder. What ships with the package
        or comes from a hub is left as it is.
    """

    def copied(part: str, key: str, value: str) -> str:
        source = Path(value)
        if not source.exists():
            return value
        role, name = part.split(".", 1)
        place = Path(name, f"{role.removesuffix('s')}-{key}{source.suffix}")
        _copy(source, folder / place)
        return place.as_posix()

    changed = _with_files({role: getattr(config, role) for role in ROLES}, copied)
    return dataclasses.replace(config, **changed)


def _with_files(table: dict[str, Any], change: Callable[[str, str, str], str]) -> dict[str, Any]:
    """Return a model's table with `change(part, key, value)` for every file that a part names."""
    changed = dict(table)
    for role in ROLES:
        parts = table.get(role)
        if isinstance(parts, Mapping):
            changed[role] = {
                name: {
                    key: change(f"{role}.{name}", key, value)
                    if key in FILE_KEYS and isinstance(value, str) and value
                    else value
                    for key, value in part.items()
                }
                if isinstance(part, Mapping)
                else part  # a mistake, which `build` names
                for name, part in parts.items()
            }
    return changed


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, unless it is there already."""
    if source.resolve() == target.resolve():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        atomic_write_bytes(target, source.read_bytes())


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Return how many parameters each part ("role.name") has, without memory for any of them."""
    return {part: counts[""] for part, counts in share_counts(config).items()}


def share_counts(config: ModelConfig) -> dict[str, dict[str, int]]:
    """Return the parameters of each part ("role.name") by all its shares; "" is the part.

    It takes no memory for any of them.
    """
    counted = {}
    for part in config.parts():
        role, name = part.split(".", 1)
        settings = config.part(role, name)
        with torch.device("meta"):
            module = settings.build()
        shares = {"": ("*",), **getattr(settings, "shares", _SHARES)}
        counts = dict.fromkeys(shares, 0)
        for key, parameter in module.named_parameters():
            for share, globs in shares.items():
                if any(fnmatchcase(key, glob) for glob in globs):
                    counts[share] += parameter.numel()
        counted[part] = counts
    return counted


def within(share: str, counts: Mapping[str, int]) -> list[str]:
    """Return the shares that make up another, or the whole part: ""."""
    start = f"{share}/" if share else ""
    found = [name for name in counts if name and name.startswith(start)]
    return [name for name in found if "/" not in name.removeprefix(start)]


def counted_together(
    config: ModelConfig, counts: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """Return sums over parts that belong together, and over the shares that several of them have.

    A diffuser and the environment encoder of its name are one network; other parts say themselves
    with which they are counted. `counts` are those of `share_counts`, and sums are named as there.
    """
    groups: dict[str, list[str]] = {}
    for part in counts:
        role, name = part.split(".", 1)
        if role in ("diffusers", "environments"):
            groups.setdefault(f"diffuser and environment of {name}", []).append(part)
        elif group := getattr(config.part(role, name), "counted_with", ""):
            groups.setdefault(group, []).append(part)
    sums: dict[str, dict[str, int]] = {}
    for group, parts in groups.items():
        for share in dict.fromkeys(share for part in parts for share in counts[part]):
            found = [counts[part][share] for part in parts if counts[part].get(share)]
            if len(found) > 1:
                sums.setdefault(group, {})[share] = sum(found)
    return sums


class Model(nn.Module):
    """The parts of a model by role and name, and their meeting as `CoDi`.

    Any subset of the parts may be present: a request builds only what it uses.
    """

    def __init__(self, config: ModelConfig, parts: Collection[str] | None = None) -> None:
        super().__init__()
        self.config = config
        for role in ROLES:
            self.add_module(role, nn.ModuleDict())
        for part in config.parts() if parts is None else parts:
            role, name = part.split(".", 1)
            self.role(role)[name] = config.part(role, name).build()

    def role(self, role: str) -> nn.ModuleDict:
        """Return the parts present in one role."""
        return self.get_submodule(role)  # type: ignore[return-value]

    def part(self, role: str, modality_name: str) -> nn.Module:
        """Return the part that a modality uses in a role.

        Raises:
            ConfigError: the modality has no such part, or it was not loaded.
        """
        name = self.config.modality(modality_name).part(role)
        if name is None or name not in self.role(role):
            raise ConfigError(
                f"{modality_name} has no {role.removesuffix('s')} in model {self.config.name!r}"
            )
        return self.role(role)[name]

    def codec(self, modality_name: str) -> Codec:
        """Return the codec of a modality."""
        return self.part("codecs", modality_name)  # type: ignore[return-value]

    def encoder(self, modality_name: str) -> PromptEncoder:
        """Return the prompt encoder of a modality."""
        return self.part("encoders", modality_name)  # type: ignore[return-value]

    def codi(self, streams: Iterable[str]) -> CoDi:
        """Return the joint model of some streams, made of the parts that are present."""
        modules: dict[str, dict[str, nn.Module]] = {"diffusers": {}, "environments": {}}
        for role, found in modules.items():
            for stream in streams:
                name = self.config.modality(stream).part(role)
                if name is not None and name in self.role(role):
                    found[stream] = self.role(role)[name]
        c = self.config
        return CoDi(modules["diffusers"], modules["environments"], c.wiring, c.interpolation)

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """Return the noise schedule."""
        return self.config.schedule.build()
