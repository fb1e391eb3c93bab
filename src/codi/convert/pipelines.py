"""What makes exported folders one pipeline of `diffusers`: its index, scheduler and tokenizer.

It knows the small files beside the weights; it reads no weights and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from codi.build import ModelConfig
from codi.convert.planning import setting_of
from codi.convert.reading import read_json
from codi.convert.sampling import BETAS, PREDICTIONS, SCHEDULER
from codi.convert.sources import ForeignLayout, ForeignModule, ForeignPipeline

INDEX = "model_index.json"

_UNET, _READER = "unet", "text_encoder"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_SAMPLER = "ddim"
"""Our sampler whose moves the written scheduler makes."""
_SPACINGS = {"ldm": "leading", "leading": "leading", "trailing": "trailing"}
"""Our spacing of the steps -> the name of the same steps in that scheduler, which has no others."""


@dataclass
class Companions:
    """Small files beside exported weights, by their names below the folder.

    Attributes:
        tables: contents to be written as JSON.
        copies: files to be copied.
    """

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)

    def add(self, others: Companions) -> None:
        """Take other files in; of two tables of one name, both say something."""
        for name, table in others.tables.items():
            self.tables[name] = self.tables.get(name, {}) | table
        self.copies |= others.copies


@dataclass(frozen=True)
class PipelineFolders:
    """The folders of a pipeline, of which an export writes some.

    Attributes:
        pipeline: what they are together.
        layout: how they are laid out.
        model: whose parts they hold.
        written: names of those that are written.
    """

    pipeline: ForeignPipeline
    layout: ForeignLayout
    model: ModelConfig
    written: tuple[str, ...]

    def why_not_whole(self) -> Iterator[str]:
        """Return what keeps them from being loaded by one call; nothing where they can be."""
        for name in self.pipeline.components:
            if name not in self.written:
                parts = [part for _, part in self._held(name)]
                absent = parts[0] if parts else f"model {self.model.name!r} has no such part"
                yield f"{name} is missing ({absent})"
        if _UNET in self.written and (first := self._part(_UNET).first_step):
            yield f"{_UNET} counts its steps from {first}, and diffusers from 0"
        if _READER in self.written and not self._tokenizer():
            names, place = self._tokenizer_place()
            yield f"tokenizer is missing ({' and '.join(names)} in {place})"
        sampling = self.model.sampling
        for key, known in (("sampler", (_SAMPLER,)), ("spacing", _SPACINGS)):
            if (value := getattr(sampling, key)) not in known:
                yield f"sampling.{key} is {value!r}, which its DDIM has not"

    def companions(self) -> Companions:
        """Return the files that make them one pipeline, where nothing keeps them from it.

        Raises:
            ConfigError: the tokenizer's configuration is damaged.
        """
        found = Companions()
        [(_, diffuser), *_] = self._held(_UNET)
        streams = self.model.modalities.values()
        stream = next(m for m in streams if f"diffusers.{m.diffuser}" == diffuser)
        found.tables[f"{_UNET}/config.json"] = {"sample_size": stream.latent[-1]}
        found.tables[SCHEDULER.as_posix()] = _scheduler(self.model, stream.prediction)
        told: dict[str, Any] = {"tokenizer_class": "CLIPTokenizer"}
        for path in self._tokenizer():
            if path.name == _TOKENIZER_CONFIG:
                told |= read_json(path)
            else:
                found.copies[f"tokenizer/{path.name}"] = path
        # The pipeline pads every text to this, and the library's own default has no end.
        told["model_max_length"] = self._part(_READER).length
        found.tables[f"tokenizer/{_TOKENIZER_CONFIG}"] = told
        found.tables[INDEX] = {
            "_class_name": self.pipeline.name,
            "feature_extractor": (None, None),
            "image_encoder": (None, None),
            "requires_safety_checker": False,
            "safety_checker": (None, None),
            "scheduler": ("diffusers", "DDIMScheduler"),
            "tokenizer": ("transformers", "CLIPTokenizer"),
            **self.pipeline.components,
        }
        return found

    def one_by_one(self, to: Path) -> str:
        """Return, for people, the calls that load each folder below `to` on its own."""
        return ", ".join(
            f'{library}.{kind}.from_pretrained("{(to / name).as_posix()}")'
            for name, (library, kind) in self.pipeline.components.items()
            if name in self.written
        )

    def _held(self, component: str) -> list[tuple[ForeignModule, str]]:
        """Return the modules of a component's folder, each with a part of ours that it is."""
        modules = [module for module in self.layout.modules if folder_of(module) == component]
        return [(module, part) for module in modules for part in module.parts(self.model)]

    def _part(self, component: str) -> Any:
        [(module, part), *_] = self._held(component)
        return module.config(self.model, part)

    def _tokenizer(self) -> tuple[Path, ...]:
        """Return the files of the tokenizer of texts."""
        [(module, part), *_] = self._held(_READER)
        kept = module.files[0]
        # Where `ClipText` looks for it.
        named = [setting_of(self.model, part, key) for key in (kept.key, "pretrained")]
        return next((files for place in named if (files := kept.at(place))), ())

    def _tokenizer_place(self) -> tuple[tuple[str, ...], str]:
        """Return the names of its files, and where they would be found."""
        [(module, part), *_] = self._held(_READER)
        kept = module.files[0]
        place = setting_of(self.model, part, kept.key)
        return kept.forms[0], place or f"a folder that `{kept.key}` of {part} names"


def folder_of(module: ForeignModule) -> str:
    """Return the folder of a module's file, which a pipeline calls its component by."""
    return PurePosixPath(module.file).parent.as_posix()


def _scheduler(model: ModelConfig, prediction: str) -> dict[str, Any]:
    """Return the configuration of the library's DDIM with a model's schedule and spacing."""
    schedule, spacing = model.schedule, model.sampling.spacing
    return {
        "_class_name": "DDIMScheduler",
        "beta_end": schedule.beta_end,
        "beta_schedule": BETAS[schedule.kind],
        "beta_start": schedule.beta_start,
        "clip_sample": False,
        "num_train_timesteps": schedule.steps,
        "prediction_type": PREDICTIONS[prediction],
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
        "set_alpha_to_one": spacing != "ldm",  # whose last move ends at the lowest noise level
        "steps_offset": 1,
        "timestep_spacing": _SPACINGS[spacing],
    }
