"""Every extractor by name: how it is opened from what the user gives, and what it wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from codi.config import ConfigError, unknown
from codi.evaluation.extractors.base import Extractor
from codi.evaluation.extractors.inception import WEIGHTS, InceptionExtractor
from codi.evaluation.extractors.own import OwnExtractor
from codi.evaluation.extractors.published import ClapExtractor, ClipExtractor
from codi.evaluation.extractors.scripted import SCRIPTS, ScriptedExtractor
from codi.pipeline import Pipeline

OWN = OwnExtractor.name
PROGRAMS = "java"
"""Name under which the folder of Java programs is given; it extracts nothing."""


@dataclass(frozen=True)
class _Entry:
    """How to open an extractor: (source, device), and what source is wanted, in words."""

    open: Callable[[str, str], Extractor]
    wants: str


EXTRACTORS: dict[str, _Entry] = {
    "inception": _Entry(
        InceptionExtractor, f"the file {WEIGHTS} (github.com/mseitzer/pytorch-fid)"
    ),
    "clip": _Entry(
        ClipExtractor, "a folder of CLIP, or the hub's name of one: openai/clip-vit-base-patch32"
    ),
    "clap": _Entry(
        ClapExtractor, "a folder of CLAP, or the hub's name of one: laion/clap-htsat-unfused"
    ),
    **{
        name: _Entry(partial(ScriptedExtractor, name), f"the file {script.file}: {script.origin}")
        for name, script in SCRIPTS.items()
    },
}
"""All but the model's own encoders, which need no file."""


class Extractors:
    """The extractors of one evaluation, opened when first needed.

    A name may be given the source "codi": the model's own encoders then stand in for that network,
    and results name them.

    Args:
        sources: file, folder or hub name of each extractor that the user has.
        pipeline: the model, for its own encoders.

    Raises:
        ConfigError: a name that is no extractor's.
    """

    def __init__(self, sources: Mapping[str, str], pipeline: Pipeline) -> None:
        for name in sources:
            if name not in (*EXTRACTORS, PROGRAMS):
                raise ConfigError(unknown("extractor", name, (*EXTRACTORS, PROGRAMS)))
        self.sources = dict(sources)
        self.pipeline = pipeline
        self._open: dict[str, Extractor] = {}

    def lacking(self, name: str) -> str | None:
        """Return what is wanted for an extractor that has no source; None where there is one."""
        if name == OWN or name in self.sources:
            return None
        if name not in EXTRACTORS:
            raise ConfigError(unknown("extractor", name, (*EXTRACTORS, OWN)))
        return self.wants(name)

    def wants(self, name: str) -> str:
        """Return what has to be given for an extractor."""
        return f"--extractors {name}=PATH, {EXTRACTORS[name].wants}"

    def __getitem__(self, name: str) -> Extractor:
        """Return an extractor.

        Raises:
            ConfigError: no source was given for it, or what was given cannot be loaded.
        """
        wanted = self.lacking(name)
        if wanted:
            raise ConfigError(f"extractor {name}: no weights; give {wanted}")
        source = self.sources.get(name, OWN)
        key = OWN if source == OWN else name
        if key not in self._open:
            device = str(self.pipeline.device)
            self._open[key] = (
                OwnExtractor(self.pipeline) if key == OWN else EXTRACTORS[name].open(source, device)
            )
        return self._open[key]
