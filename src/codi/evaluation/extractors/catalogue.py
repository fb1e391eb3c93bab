"""Every extractor by name: how it is opened from what the user gives, and what it wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from codi.config import ConfigError, unknown
from codi.evaluation.extractors.base import Extractor
from codi.evaluation.extractors.inception import WEIGHTS, InceptionExtractor
from codi.evaluation.extractors.offsets import FILE, ORIGIN, OffsetExtractor
from codi.evaluation.extractors.own import OwnExtractor, OwnFrameExtractor
from codi.evaluation.extractors.published import ClapExtractor, ClipExtractor
from codi.evaluation.extractors.scripted import SCRIPTS, ScriptedExtractor
from codi.pipeline import Pipeline

OWNS = {kind.name: kind for kind in (OwnExtractor, OwnFrameExtractor)}
"""The model's own encoders, which need no file."""

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
    OffsetExtractor.name: _Entry(OffsetExtractor, f"the file {FILE}: {ORIGIN}"),
}
"""All others."""


class Extractors:
    """The extractors of one evaluation, opened when first needed.

    A name may be given the source "codi" (or another of `OWNS`): the model's own encoders then
    stand in for that network, and results name them.

    Args:
        sources: file or folder of each extractor that the user has; for CLIP and CLAP a hub name
            as well.
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

    def lacking(self, name: str, kinds: Sequence[str] = ()) -> str | None:
        """Return what is wanted of an extractor before it can give `kinds`; None where it can.

        Raises:
            ConfigError: an unknown name, or a source that cannot be loaded.
        """
        if name not in (*EXTRACTORS, *OWNS):
            raise ConfigError(unknown("extractor", name, (*EXTRACTORS, *OWNS)))
        if name not in OWNS and name not in self.sources:
            return self.wants(name)
        absent = [kind for kind in kinds if kind not in self[name].gives]
        if absent:
            return f"extractor {self[name].name} gives no {absent[0]}; give {self.wants(name)}"
        return None

    def wants(self, name: str) -> str:
        """Return what has to be given for an extractor."""
        if name not in EXTRACTORS:
            return "another extractor in the suite"
        return f"--extractors {name}=PATH, {EXTRACTORS[name].wants}"

    def __getitem__(self, name: str) -> Extractor:
        """Return an extractor.

        Raises:
            ConfigError: no source was given for it, or what was given cannot be loaded.
        """
        if name not in OWNS and name not in self.sources:
            raise ConfigError(f"extractor {name}: no weights; give {self.wants(name)}")
        source = self.sources.get(name, name)
        key = source if source in OWNS else name
        if key not in self._open:
            device = str(self.pipeline.device)
            own = OWNS.get(key)
            self._open[key] = (
                own(self.pipeline) if own is not None else EXTRACTORS[name].open(source, device)
            )
        return self._open[key]
