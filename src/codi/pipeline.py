"""Generate any modalities from any modalities: prompts -> context -> joint sampling -> media.

The pipeline knows modality names only through the registry and the model's configuration.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codi.build import Model, ModelConfig, load_config
from codi.config import ConfigError
from codi.denoiser import JointDenoiser
from codi.diffusion import SAMPLERS, GuidanceRule, Noise, NoiseSource, ProductSpace
from codi.diffusion.settings import doubtful, resolved
from codi.encoders.mixing import interpolated, of_one_length
from codi.generation import (
    Condition,
    Conditions,
    Generation,
    SamplingSettings,
    read_argument,
    shares,
)
from codi.memory import return_freed_memory
from codi.nn.precision import cpu_compute_dtype, named_dtype
from codi.nn.readiness import Readiness
from codi.types import Latents
from codi.unets.reuse import DeepFeatures
from codi.weights import find_device, find_model, open_part, require_files


@dataclass(frozen=True)
class Encoded:
    """A request that is checked and encoded, to be sampled as often as one likes.

    Attributes:
        to: names of the modalities to generate.
        settings: as they were asked for.
        described: with every default filled in.
        context: of the prompts (1, L, D).
        against: what to steer away from (1, L, D).
        kept: clean latents (1, ...) of the streams that are given.
        originals: their objects.
        notes: as in `Generation`.
    """

    to: Sequence[str]
    settings: SamplingSettings
    described: dict[str, Any]
    context: Tensor
    against: Tensor
    kept: Latents
    originals: dict[str, Any]
    notes: list[str]


class Pipeline:
    """A model in a folder, with its parts loaded when a request first needs them.

    With `offload`, parts are dropped as soon as a request has no more use for them, and loaded
    again by the next: prompt encoders once all prompts are encoded, codecs once all kept streams
    are, diffusers before decoding. Weights are held in `dtype` and computed in `compute_dtype`,
    which is `dtype` by default.
    """

    def __init__(
        self,
        config: ModelConfig,
        folder: Path | None = None,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        compute_dtype: torch.dtype | None = None,
        model: Model | None = None,
        offload: bool = False,
        compile: bool = False,
    ) -> None:
        if offload and folder is None:
            raise ConfigError("a model in memory cannot be offloaded; give a folder")
        self.config = config
        self.folder = folder
        self.device = torch.device(device)
        self.dtype = dtype
        self.compute_dtype = compute_dtype or dtype
        self.offload = offload
        self.compile = compile
        self.model = Model(config, []) if model is None else model

    def __repr__(self) -> str:
        makes = ", ".join(self.config.generated)
        return f"Pipeline({self.config.name!r} on {self.device}, makes {makes})"

    def generate(
        self,
        conditions: Conditions = (),
        to: Sequence[str] = ("image",),
        *,
        seeds: Sequence[int] = (0,),
        negative: Conditions = (),
        keep: Mapping[str, Any] | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | Mapping[str, float] | None = None,
        eta: float | None = None,
        spacing: str | None = None,
        guidance_interval: tuple[int, int] | None = None,
        reuse: int | None = None,
        callback: Callable[[int, int], None] | None = None,
        batch: int = 8,
    ) -> Generation:
        """Generate the modalities `to`, jointly, one sample for each seed.

        Args:
            conditions: prompts, e.g. `[("text", "a red ball", 0.7), ("audio", "knock.wav", 0.3)]`;
                weights are normalised to 1. None at all generates unconditionally.
            to: names of the modalities to generate together.
            seeds: the noise of each output depends on its seed alone. The sample also depends on
                the outputs made with it, which hear each other, and on the batch up to rounding.
            negative: what to steer away from, in place of "no prompt"; needs a guidance other
                than 1.
            keep: streams that are given, e.g. `{"video": "silent.mp4"}`: held clean while the
                others are generated around them, and conditions as well.
            sampler: name of a sampler; the model's own when None, like the next six.
            steps: denoising steps.
            guidance: scale of the guidance, one number or one for each modality.
            eta: noise that the sampler adds back, where it can.
            spacing: how the steps are spread over the noise levels.
            guidance_interval: lowest and highest step t that are guided (Kynkaanniemi et al. 2024);
                the others cost half.
            reuse: compute the inside of the diffusers at every n-th evaluation only (DeepCache, Ma
                et al. 2024); 1 at each.
            callback: called as callback(step, steps) after every step, from 1 anew for each batch.
            batch: most samples denoised, and decoded, at once.

        Raises:
            ConfigError: an argument of another type, an unknown modality or sampler, or a
                contradictory request.
            MediaError: a file that cannot be used.
        """
        seeds, batch = _read("seeds", seeds), _read("batch", batch)
        callback = _read("callback", callback)
        settings = SamplingSettings(
            sampler, steps, guidance, eta, spacing, guidance_interval, reuse
        )
        encoded = self.encoded(conditions, to, negative=negative, keep=keep, settings=settings)
        return self.generated(encoded, seeds, callback=callback, batch=batch)

    def encoded(
        self,
        conditions: Conditions = (),
        to: Sequence[str] = ("image",),
        *,
        negative: Conditions = (),
        keep: Mapping[str, Any] | None = None,
        settings: SamplingSettings = SamplingSettings(),
    ) -> Encoded:
        """Check a request and encode what it gives: the half of `generate` that knows no seed.

        Raises:
            ConfigError, MediaError: as `generate`.
        """
        prompts, away = _read("conditions", conditions), _read("negative", negative)
        to, kept_sources = _read("to", to), _read("keep", keep) or {}
        self._check(to, kept_sources)
        described = self.describe(settings, to)  # refuses the impossible before loading anything
        if away and all(scale == 1 for scale in described["guidance"].values()):
            raise ConfigError(
                "negative prompts change nothing at guidance 1; give a higher guidance, such as 3, "
                "or leave them out"
            )
        prompts += [Condition(name, source) for name, source in kept_sources.items()]
        streams = [*to, *kept_sources]
        asked = [c.modality for c in (*prompts, *away)]
        needed = self.config.sampling_parts(asked, streams, kept_sources)
        needed += self.config.parts(("codecs",), list(kept_sources))
        self._look_for([*needed, *self.config.parts(("codecs",), to)])
        if not self.offload:
            self._load(needed)

        pure_noise = self.config.schedule.zero_terminal_snr
        notes = doubtful(described, pure_noise, bool(prompts), bool(away))
        context, unprompted = self._contexts(prompts, notes)
        against = self.context(away, notes) if away else unprompted
        self._drop("encoders")
        kept, originals = self._keep(kept_sources, notes)
        self._drop("codecs")
        return Encoded(to, settings, described, context, against, kept, originals, notes)

    def generated(
        self,
        encoded: Encoded,
        seeds: Sequence[int],
        *,
        callback: Callable[[int, int], None] | None = None,
        batch: int = 8,
    ) -> Generation:
        """Sample and decode what was encoded: the other half of `generate`, with its arguments.

        A request may be made in several calls: which of them makes a sample changes it by rounding
        alone.
        """
        sampled = []
        for first in range(0, len(seeds), batch):
            some = list(seeds[first : first + batch])
            sampled.append(
                self.sample(
                    encoded.context.expand(len(some), -1, -1),
                    encoded.to,
                    some,
                    settings=encoded.settings,
                    against=encoded.against.expand(len(some), -1, -1),
                    kept={n: z.expand(len(some), *z.shape[1:]) for n, z in encoded.kept.items()},
                    callback=callback,
                )
            )
        self._drop("diffusers", "environments")
        outputs: dict[str, list[Any]] = {name: [] for name in encoded.to}
        for latents in sampled:
            for name, items in self.decode(latents).items():
                outputs[name] += items
        self._drop("codecs")
        outputs |= {name: [item] * len(seeds) for name, item in encoded.originals.items()}
        for i in range(len(seeds)):
            sample = {name: items[i] for name, items in outputs.items()}
            for name, item in sample.items():
                outputs[name][i] = self.config.media(name).with_others(item, sample)
        return Generation(outputs, list(encoded.notes), encoded.described)

    # --- stations on the way ---

    @torch.no_grad()
    def context(self, conditions: Sequence[Condition], notes: list[str] | None = None) -> Tensor:
        """Return the interpolation (1, L, D) of all prompts (CoDi, 3.2), not re-normalised.

        Prompts of L tokens interpolate token by token, those of one token with every one of them
        (`codi.encoders.mixing`). Without conditions it is the empty context. Notes on the media are
        added to `notes`.

        Raises:
            ConfigError: weights that are negative or all zero, or lengths that differ.
        """
        return self._contexts(conditions, notes)[0]

    @torch.no_grad()
    def _contexts(
        self, conditions: Sequence[Condition], notes: list[str] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed contexts (1, L, D) of all prompts, and of no prompt in their places."""
        if not conditions:
            return self.empty_context(1), self.empty_context(1)
        try:
            weights = shares([float(c.weight) for c in conditions])
        except ValueError as error:
            raise ConfigError(f"{error}; give one positive number for each condition") from error
        prompted, unprompted = [], []
        for condition in conditions:
            media = self.config.media(condition.modality)
            item, said = media.load(condition.source)
            self.require([], [condition.modality], {})
            encoder = self.model.encoder(condition.modality)
            x = self._moved(media.to_tensor([media.to_array(item)]))
            if notes is not None:
                notes.extend(said)
                notes.extend(f"{condition.modality}: {line}" for line in encoder.unread(x))
            prompted.append(encoder(x).to(self.compute_dtype))
            unprompted.append(encoder.unprompted(x).to(self.compute_dtype))
        return interpolated(prompted, weights), interpolated(unprompted, weights)

    @torch.no_grad()
    def encode_prompts(self, name: str, arrays: Sequence[Any]) -> Tensor:
        """Return contexts (B, L, D) of B arrays of one modality."""
        self.require([], [name], {})
        x = self.config.media(name).to_tensor(arrays)
        return self.model.encoder(name)(self._moved(x)).to(self.compute_dtype)

    @torch.no_grad()
    def encode_unprompted(self, name: str, arrays: Sequence[Any]) -> Tensor:
        """Return contexts (B, L, D) of no prompt in place of B arrays, to guide away from."""
        self.require([], [name], {})
        x = self.config.media(name).to_tensor(arrays)
        return self.model.encoder(name).unprompted(self._moved(x)).to(self.compute_dtype)

    def empty_context(self, size: int) -> Tensor:
        """Return contexts (B, L, D) that say nothing: zero, the mean of all prompts.

        Where prompts are sequences there is no such mean: it is the context of empty sentences.
        """
        encoders = {
            name: self.config.part("encoders", m.encoder)
            for name, m in self.config.modalities.items()
            if m.encoder
        }
        for name, encoder in encoders.items():
            if getattr(encoder, "sequence", False):
                return self.encode_prompts(name, [""]).expand(size, -1, -1)
        width = next(iter(encoders.values())).context_width
        return torch.zeros(size, 1, width, device=self.device, dtype=self.compute_dtype)

    @torch.no_grad()
    def encode(self, name: str, arrays: Sequence[Any]) -> Tensor:
        """Return clean latents (B, ...) of B arrays of one modality."""
        self._load(self.config.parts(("codecs",), [name]))
        x = self.config.media(name).to_tensor(arrays)
        return self.model.codec(name).encode(self._moved(x)).float()

    @torch.no_grad()
    def sample(
        self,
        context: Tensor,
        to: Sequence[str],
        seeds: Sequence[int],
        *,
        settings: SamplingSettings = SamplingSettings(),
        against: Tensor | None = None,
        kept: Latents | None = None,
        callback: Callable[[int, int], None] | None = None,
    ) -> Latents:
        """Return sampled latents of the modalities `to`, denoised together.

        Args:
            context: prompts (B, L, D).
            to: names of the modalities.
            seeds: B seeds.
            settings: how to sample.
            against: negative prompts (B, L, D), or None for the empty context.
            kept: clean latents of streams that are given.
            callback: called as callback(step, steps) after every step.
        """
        kept = dict(kept or {})
        self.require([*to, *kept], [], kept)
        described = self.describe(settings, to)
        schedule, total = self.model.schedule, described["steps"]
        timesteps = schedule.timesteps(total, described["spacing"])
        space = ProductSpace({name: tuple(self.config.modality(name).latent) for name in to})
        noise = NoiseSource(Noise(list(seeds)), space)
        sampler = SAMPLERS[described["sampler"]]
        against = self.empty_context(len(seeds)) if against is None else against
        context, against = of_one_length([context, against.to(context)])
        denoise = JointDenoiser(
            self.model,
            space,
            context.to(self.device, self.compute_dtype),
            against.to(self.device, self.compute_dtype),
            {name: z.to(self.device, self.compute_dtype) for name, z in kept.items()},
            {
                name: GuidanceRule(
                    described["guidance"][name],
                    self.config.modality(name).rescale,
                    described["guidance_interval"],
                )
                for name in to
            },
            self.compute_dtype,
            tuple(timesteps[:-1]),
            self._deep(to, described["reuse"]),
            prepares=self.readiness.takes_prepared,
        )

        def on_device(index: int) -> Tensor:
            return noise(index).to(self.device)

        def report(index: int, _count: int, _t: int, _z: Tensor, _z0: Tensor) -> None:
            if callback is not None:
                callback(index + 1, total)

        z = sampler(
            denoise,
            on_device(0),
            timesteps,
            schedule,
            eta=described["eta"],
            noise=on_device,
            callback=report,
        )
        if not torch.isfinite(z).all():
            scales = ", ".join(f"{name} {scale:g}" for name, scale in described["guidance"].items())
            wider = "" if self.compute_dtype == torch.float32 else "--dtype float32, "
            raise ConfigError(
                f"model {self.config.name!r} made numbers that are not finite in "
                f"{self.compute_dtype}; try {wider}a lower guidance than {scales} or more steps"
            )
        return space.unpack(z)

    @torch.no_grad()
    def decode(self, latents: Latents) -> dict[str, list[Any]]:
        """Return the media objects of latents, a list for each modality."""
        self._load(self.config.parts(("codecs",), list(latents)))
        return {
            name: self.config.media(name).from_tensor(
                self.model.codec(name).decode(z.to(self.device, self.compute_dtype))
            )
            for name, z in latents.items()
        }

    def describe(self, settings: SamplingSettings, to: Sequence[str]) -> dict[str, Any]:
        """Return the settings with every default filled in, and the versions that made them.

        Raises:
            ConfigError: a setting of another type, or one that this model cannot do.
        """
        from codi import __version__

        settings = replace(settings, **{k: _read(k, v) for k, v in vars(settings).items()})
        found = resolved(
            settings,
            vars(self.config.sampling),
            {name: self.config.modality(name).guidance for name in to},
            self.model.schedule.T,
        )
        if found["reuse"] > 1 and self.compile:
            raise ConfigError(
                f"reuse = {found['reuse']} computes other layers at every step, which a compiled "
                "network cannot; leave --compile out, or give --reuse 1"
            )
        return {
            "model": self.config.name,
            "to": list(to),
            **found,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "compute_dtype": str(self.compute_dtype).removeprefix("torch."),
            "versions": {
                "codi": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    # --- parts and checks ---

    def require(
        self, streams: Sequence[str], prompts: Sequence[str], kept: Mapping[str, Any]
    ) -> None:
        """Load the parts that a request uses and nothing else."""
        self._load(self.config.sampling_parts(prompts, streams, kept))

    @property
    def readiness(self) -> Readiness:
        """How networks that run at every step are made ready when they are loaded."""
        return Readiness(self.device, self.compile, lasting=not self.offload)

    def _load(self, parts: Sequence[str]) -> None:
        for part in parts:
            role, name = part.split(".", 1)
            if name not in self.model.role(role):
                self._look_for([part])
                assert self.folder is not None
                opened = open_part(
                    self.config,
                    self.folder,
                    part,
                    device=self.device,
                    dtype=self.dtype,
                    compute_dtype=self.compute_dtype,
                )
                if role in ("diffusers", "environments"):  # they run at every step
                    self.readiness.make_ready(opened, large=role == "diffusers")
                self.model.role(role)[name] = opened

    def _look_for(self, parts: Sequence[str]) -> None:
        """Say now what could not be loaded later, after minutes of denoising perhaps."""
        for part in parts:
            role, name = part.split(".", 1)
            if name in self.model.role(role):
                continue
            if self.folder is None:
                raise ConfigError(f"{part} is not part of this model; build it with all parts")
            require_files(self.folder, part)

    def _drop(self, *roles: str) -> None:
        """Forget the parts in some roles, with `offload`; they are loaded again when needed."""
        if not self.offload:
            return
        for role in roles:
            self.model.role(role).clear()
        gc.collect()  # some parts refer to themselves
        return_freed_memory()

    def _check(self, to: Sequence[str], keep: Mapping[str, Any]) -> None:
        if not to:
            raise ConfigError("nothing to generate; name at least one modality")
        for name in (*to, *keep):
            if self.config.modality(name).diffuser is None:
                raise ConfigError(
                    f"model {self.config.name!r} takes {name} only as a condition; "
                    f"it generates {', '.join(self.config.generated)}"
                )
        twice = sorted({name for name in to if name in keep or list(to).count(name) > 1})
        if twice:
            raise ConfigError(
                f"{', '.join(twice)}: asked for twice; a modality is either generated or kept, once"
            )

    def _deep(self, to: Sequence[str], reuse: int) -> dict[str, DeepFeatures]:
        """Return what the diffusers that can reuse their inside keep of it; nothing for 1."""
        parts = {name: self.model.part("diffusers", name) for name in to} if reuse > 1 else {}
        able = [name for name, part in parts.items() if getattr(part, "reuses_inside", False)]
        return {name: DeepFeatures(reuse) for name in able}

    def _keep(self, sources: Mapping[str, Any], notes: list[str]) -> tuple[Latents, dict[str, Any]]:
        """Return clean latents (1, ...) and the objects of the streams that are given."""
        latents, originals = {}, {}
        for name, source in sources.items():
            media = self.config.media(name)
            originals[name], said = media.load(source)
            array = media.to_array(originals[name])
            latents[name] = self.encode(name, [array])
            unread = self.model.codec(name).unread(media.to_tensor([array]))
            said += [f"{name}: {line}" for line in unread]
            notes.extend(line for line in said if line not in notes)
        return latents, originals

    def _moved(self, x: Any) -> Any:
        return x.to(self.device, self.compute_dtype) if isinstance(x, Tensor) else x


def load(
    model: str | Path = "tiny",
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    compute_dtype: str | torch.dtype = "auto",
    offload: bool = False,
    compile: bool = False,
) -> Pipeline:
    """Return the pipeline of a model: a shipped name or a folder. Weights are read when needed.

    Args:
        model: "tiny", or a folder with `config.toml` and weights.
        device: "auto" takes a GPU where there is one.
        dtype: what the weights are held in: float32 (or fp32), bfloat16 (bf16) or float16 (fp16),
            as a name or a `torch.dtype`; "auto" is float32 on a CPU, bfloat16 on a GPU. Weights
            that are stored in this type are not read into memory, but mapped.
        compute_dtype: what they are computed in, layer by layer where it is another type. "auto" is
            `dtype` on a GPU, and on a CPU for float32; 16 bits are computed in bfloat16 where a try
            shows that the CPU is fast at it, else in float32. float16 is refused on a CPU, where it
            is hundreds of times slower.
        offload: whether parts are dropped when they have done their work, and loaded again by the
            next request: slower, and the peak of memory is that of the largest station.
        compile: whether `torch.compile` translates diffusers, which takes minutes once.

    Raises:
        ConfigError: no such model, device or dtype, or no compiler.
    """
    found = find_device(device)
    kind = found.type
    if dtype == "auto":
        dtype = "float32" if kind == "cpu" else "bfloat16"
    held = named_dtype("dtype", dtype)
    if compute_dtype != "auto":
        computed = named_dtype("compute_dtype", compute_dtype)
    else:
        computed = cpu_compute_dtype(held) if kind == "cpu" else held
    if computed == torch.float16 and kind == "cpu":
        raise ConfigError(
            "to compute in float16 is hundreds of times slower on a CPU; use bfloat16 or float32"
        )
    folder = find_model(model)
    if compile and computed != held:
        held_name, wanted = (str(x).removeprefix("torch.") for x in (held, computed))
        raise ConfigError(
            f"weights held in {held_name} are not compiled here; give --dtype {wanted}, or leave "
            "--compile out"
        )
    return Pipeline(
        load_config(folder),
        folder,
        device=str(found),
        dtype=held,
        compute_dtype=computed,
        offload=offload,
        compile=compile,
    )


def _read(name: str, given: Any) -> Any:
    try:
        return read_argument(name, given)
    except ValueError as error:
        raise ConfigError(str(error)) from error


__all__ = ["Condition", "Generation", "Pipeline", "SamplingSettings", "load"]
