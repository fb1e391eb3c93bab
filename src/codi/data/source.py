"""Where training items come from: procedural worlds and WebDataset shards, behind one contract.

An item is a dict of arrays by modality name plus a small JSON-able record; captions are written
from the record, so that every epoch can see other words. Sources know no network and no stage of
training.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from codi import media, worlds
from codi.build import ModelConfig
from codi.config import ConfigError, build, unknown
from codi.data.shards import Item, ItemError, index_shard
from codi.data.variation import VARIATIONS
from codi.modalities import modality

Record = dict[str, Any]

Roots = Path | Sequence[Path] | None
"""A folder of data, or several, of which the first that has a file gives it; None: the current."""


@dataclass(frozen=True)
class Caption:
    """A sentence, and what it claims in terms its source can check (`Source.matches`)."""

    text: str
    claim: Any


class Source(ABC):
    """A finite, indexable set of items with captions."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that changes whenever the items would."""

    @abstractmethod
    def read(self, index: int) -> tuple[dict[str, np.ndarray], Record]:
        """Return the arrays by modality name (uint8 frames, int16 samples) and the record."""

    @abstractmethod
    def caption(
        self, record: Record, shown_by: str, rng: np.random.Generator, complete: bool = False
    ) -> Caption:
        """Write a caption that says what a medium of modality `shown_by` shows of the item."""

    @abstractmethod
    def matches(self, claims: Sequence[Any], records: Sequence[Record]) -> np.ndarray:
        """Return bool (n, m): whether claim i is true of record j."""

    def varied(self, modality: str, array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an item's array as another take of the same thing could be; here as it is."""
        del modality, rng
        return array


@dataclass(frozen=True)
class WorldConfig:
    """A procedural world of `codi.worlds`: `clips` items rendered from consecutive seeds."""

    world: str
    clips: int
    seed: int = 0
    split: str = "trained"

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ValueError: an unknown world or split, or no clips.
        """
        known = [module.name for module in pkgutil.iter_modules(worlds.__path__)]
        if self.world not in known:
            raise ValueError(unknown("world", self.world, known))
        splits = importlib.import_module(f"codi.worlds.{self.world}").SPLITS
        if self.split not in splits:
            raise ValueError(unknown("split", self.split, splits))
        if self.clips < 1:
            raise ValueError(f"clips is {self.clips}; give 1 or more")

    def build(self, config: ModelConfig, root: Path | None) -> Source:
        """Return the source.

        Raises:
            ConfigError: the world renders other sizes or rates than the model takes.
        """
        del root
        source = WorldSource(self)
        source.check(config)
        return source


class WorldSource(Source):
    """Items of a procedural world; captions mention random facts that the medium shows."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.codes = {
            fact: {value: i for i, value in enumerate(values)}
            for fact, values in self.world.FACTS.items()
        }

    def __len__(self) -> int:
        return self.config.clips

    @property
    def world(self) -> Any:
        """Return the world's module, which is no attribute so that sources can be pickled."""
        return importlib.import_module(f"codi.worlds.{self.config.world}")

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        """Return the media settings, by modality, that fit what the world renders."""
        world = self.world
        picture = {"size_px": world.SIZE_PX}
        return {
            "image": picture,
            "video": picture | {"frames": world.FRAMES, "fps": world.FPS},
            "audio": {"sample_rate_hz": world.SAMPLE_RATE_HZ, "duration_s": world.DURATION_S},
        }

    def check(self, config: ModelConfig) -> None:
        """Raise ConfigError when the world renders other sizes or rates than the model takes."""
        for name, made in self.sizes.items():
            wanted = config.modality(name).media if name in config.modalities else made
            if any(wanted.get(key) != value for key, value in made.items()):
                raise ConfigError(
                    f"world {self.config.world!r} renders {name} with {made}, and model "
                    f"{config.name!r} takes {wanted}; train it on shards, which are fitted"
                )

    @property
    def fingerprint(self) -> str:
        c = self.config
        arrays, _ = self.read(0)  # so that a changed renderer is a changed world
        look = hashlib.sha256(b"".join(a.tobytes() for a in arrays.values())).hexdigest()[:8]
        return f"{c.world}-{c.split}-{c.seed}-{c.clips}-{look}"

    def scene(self, index: int) -> Any:
        """Return the scene of one item."""
        return self.world.sample_scene(self.config.seed * 10_000_019 + index, self.config.split)

    def read(self, index: int) -> tuple[dict[str, np.ndarray], Record]:
        scene = self.scene(index)
        samples = np.round(self.world.render_audio(scene) * 32767.0).astype(np.int16)
        arrays = {"video": self.world.render_video(scene), "audio": samples}
        return arrays, {"facts": dict(scene.facts)}

    def caption(
        self, record: Record, shown_by: str, rng: np.random.Generator, complete: bool = False
    ) -> Caption:
        written = self.world.write_caption(record["facts"], shown_by, rng, complete=complete)
        return Caption(written.text, written.mentions)

    def matches(self, claims: Sequence[Any], records: Sequence[Record]) -> np.ndarray:
        said, true = self._coded(claims)[:, None], self._coded([r["facts"] for r in records])[None]
        return ((said < 0) | (said == true)).all(-1)

    def _coded(self, facts: Sequence[dict[str, str]]) -> np.ndarray:
        """Return integer codes (n, facts), -1 where a fact is not mentioned."""
        rows = [
            [code[f[fact]] if fact in f else -1 for fact, code in self.codes.items()] for f in facts
        ]
        return np.array(rows)


@dataclass(frozen=True)
class ShardsConfig:
    """WebDataset tar shards: `KEY.json` beside `KEY.image.webp`, `KEY.audio.flac`, ...

    Members without a modality in their name (`KEY.jpg`, `KEY.txt`) go by their ending alone.

    Attributes:
        files: glob patterns, absolute or below the data folder (`--data` or CODI_DATA).
        captions: for a modality, a regular expression that picks the captions it shows. Without
            one they are those of `captions_of` in the item's JSON, or all.
        vary: by modality, how strongly media that a task reads are varied at random, against
            learning few items by heart: about 0.15 for drawings and voices (`codi.data.variation`).
            Cached latents are of the media as they are.
        optional: leave the source out, with a note, where no file matches.
        loop: begin a film strip again where the model's clips are longer, as animations do, instead
            of holding its last frame; a record may say it for its own item (`"loop": true`).
        split: "held-out" takes every eighth item, by a hash of its key, and "trained" the others:
            for shards that came without a part to judge by.
    """

    files: tuple[str, ...]
    captions: dict[str, str] = field(default_factory=dict)
    vary: dict[str, float] = field(default_factory=dict)
    optional: bool = False
    loop: bool = False
    split: Literal["all", "trained", "held-out"] = "all"

    def __post_init__(self) -> None:
        """Check the variations.

        Raises:
            ValueError: a modality that cannot be varied, or a strength outside 0 ... 0.5.
        """
        for name, strength in self.vary.items():
            if name not in VARIATIONS:
                raise ValueError("vary: " + unknown("modality", name, VARIATIONS))
            if not 0.0 <= strength <= 0.5:
                raise ValueError(f"vary: {name} is {strength:g}; give 0 to 0.5")

    def build(self, config: ModelConfig, root: Roots) -> Source | None:
        """Return the source, or None for an optional one without files.

        Raises:
            ConfigError: no file matches and the source is not optional.
        """
        found = [p for pattern in self.files for p in find_files(pattern, root)]
        if found:
            return ShardSource(self, found, config)
        if self.optional:
            return None
        raise ConfigError(
            f"no shards match {', '.join(self.files)} below {places(root)}; "
            "give the folder with --data or CODI_DATA"
        )


def data_root(given: str | None = None) -> Path | None:
    """Return the folder of data sets: the one given, or that of the variable CODI_DATA.

    Raises:
        ConfigError: there is no such folder.
    """
    chosen = given or os.environ.get("CODI_DATA")
    if chosen and not Path(chosen).is_dir():
        said = f"--data {chosen}" if given else f"CODI_DATA={chosen}"
        raise ConfigError(f"{said}: there is no such folder; mend it, or leave it out")
    return Path(chosen) if chosen else None


def data_roots(given: str | Sequence[str] | None = None) -> tuple[Path, ...]:
    """Return the folders of data sets: those given, or that of the variable CODI_DATA, if any.

    Raises:
        ConfigError: there is no such folder.
    """
    named: Sequence[str | None] = [given] if isinstance(given, str) else given or [None]
    return tuple(root for name in named if (root := data_root(name)) is not None)


def beside_set(root: Roots) -> tuple[Path, ...]:
    """Return folders of data with that of the variable CODI_DATA as the last.

    For what is needed beside the data that were asked for. It need not be there.
    """
    chosen = os.environ.get("CODI_DATA")
    return tuple(dict.fromkeys([*_each(root), *([Path(chosen)] if chosen else [])]))


def _each(root: Roots) -> tuple[Path, ...]:
    return (root,) if isinstance(root, Path) else tuple(root or (Path(),))


def places(root: Roots) -> str:
    """Return folders of data as words.

    >>> places(None), places([Path("mine"), Path("yours")])
    ('the current folder', 'mine or yours')
    """
    return " or ".join("the current folder" if r == Path() else str(r) for r in _each(root))


def find_files(pattern: str, root: Roots) -> list[Path]:
    """Return the files that match a glob pattern: absolute, or in the first folder with any."""
    path = Path(pattern)
    if path.is_absolute():
        return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    found = (sorted(folder.glob(pattern)) for folder in _each(root))
    return next((files for files in found if files), [])


class ShardSource(Source):
    """Items of tar shards. Media are fitted to the model's sizes and rates when read."""

    def __init__(self, config: ShardsConfig, files: Sequence[Path], model: ModelConfig) -> None:
        self.config = config
        self.files = list(files)
        self.model = model

    @cached_property
    def items(self) -> list[Item]:
        """Return the items of all shards: where their members lie, and not what is in them."""
        takes = _SPLITS[self.config.split]
        found = [item for file in self.files for item in index_shard(file)]
        return [item for item in found if takes(zlib.crc32(item.key.encode()) % _HELD_OUT_OF == 0)]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        settings = {name: m.media for name, m in self.model.modalities.items()}
        sizes = [(path.name, path.stat().st_size) for path in self.files]
        depends = (sorted(settings.items()), sizes, self.config.loop, self.config.split)
        digest = hashlib.sha256(repr(depends).encode()).hexdigest()
        return f"{self.files[0].stem}-{digest[:12]}"

    def read(self, index: int) -> tuple[dict[str, np.ndarray], Record]:
        """Return an item.

        Raises:
            ItemError: a damaged file or record; other items can be read.
            ConfigError: a damaged shard.
        """
        item = self.items[index]
        record = item.record()
        told = {"loop": self.config.loop} | record
        arrays = {}
        try:
            for name, decode in DECODERS.items():
                member = item.named(name, ENDINGS.get(name, ()))
                if member is not None and name in self.model.modalities:
                    arrays[name] = decode(member.read(), told, self.model.modality(name).media)
            arrays |= self._frames(item, record, arrays)
            captions = captions_in(record)
        except media.MediaError as error:
            raise ItemError(f"{item.file}: item {item.key!r}: {error}") from error
        except ConfigError:  # of the shard
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ItemError(
                f"{item.file}: item {item.key!r}: its record does not say what its media are "
                f"({type(error).__name__}: {error}); mend or leave out the item"
            ) from error
        labels = {key: value for key, value in record.items() if isinstance(value, str | int)}
        of = {name: _several(said) for name, said in (record.get("captions_of") or {}).items()}
        kept = {"captions": captions, "captions_of": of, "labels": labels}
        return arrays, kept

    def _frames(
        self, item: Item, record: Record, arrays: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return media without a file that are a frame of another: `"image_frame": 0`."""
        found = {}
        for name in self.model.modalities:
            whole, at = modality(name).part_of, record.get(f"{name}_frame")
            member = item.named(whole, ENDINGS.get(whole, ())) if whole else None
            if name not in arrays and at is not None and member is not None:
                settings = self.model.modality(name).media
                found[name] = _decode_frame(member.read(), record, int(at), settings)
        return found

    def caption(
        self, record: Record, shown_by: str, rng: np.random.Generator, complete: bool = False
    ) -> Caption:
        del complete
        pattern = self.config.captions.get(shown_by)
        if pattern is None:
            choices = _several(record.get("captions_of", {}).get(shown_by))
        else:
            choices = [c for c in _several(record["captions"]) if re.search(pattern, c)]
        # Wordless items prompt with nothing.
        choices = choices or _several(record["captions"]) or [""]
        text = str(choices[rng.integers(len(choices))])
        return Caption(text, text)

    def varied(self, modality: str, array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        strength = self.config.vary.get(modality, 0.0)
        return VARIATIONS[modality](array, strength, rng) if strength else array

    def matches(self, claims: Sequence[Any], records: Sequence[Record]) -> np.ndarray:
        known = [set(_several(r["captions"])) for r in records]
        return np.array([[claim in captions for captions in known] for claim in claims])


def captions_in(record: Record) -> list[str]:
    """Return all captions of a shard's record: `captions`, those of `captions_of`, or `text`."""
    said = _several(record.get("captions")) or [
        c for some in (record.get("captions_of") or {}).values() for c in _several(some)
    ]
    return said or _several(record.get("text"))


def _several(said: str | Sequence[str] | None) -> list[str]:
    """Return captions as a list: a record, also one of a store, may give one without brackets."""
    return [said] if said and isinstance(said, str) else list(said or ())


def _decode_video(encoded: bytes, record: Record, settings: dict[str, Any]) -> np.ndarray:
    if "video" not in record:  # a film strip is a picture that only its record can explain
        return media.decode_video(encoded, **settings).frames
    frames = media.decode_filmstrip(encoded, record["video"]["n"])
    wanted, own_fps = settings["frames"], float(record["video"]["fps"])
    index = (np.arange(wanted) / settings["fps"] * own_fps).round().astype(int)
    index = index % len(frames) if record.get("loop") else np.minimum(index, len(frames) - 1)
    return media.resize_frames(frames[index], settings["size_px"])


def _decode_frame(encoded: bytes, record: Record, at: int, settings: dict[str, Any]) -> np.ndarray:
    """Return one frame (1, H, W, 3) of a film strip."""
    count = (record.get("video") or {}).get("n", 0)
    if not 0 <= at < count:
        raise media.MediaError(
            f"frame {at} is to be its picture, of a film strip of {count} frames; name one that "
            "is there"
        )
    frames = media.decode_filmstrip(encoded, count)
    return media.resize_frames(frames[at : at + 1], settings["size_px"])


def _decode_image(encoded: bytes, record: Record, settings: dict[str, Any]) -> np.ndarray:
    del record
    picture = np.asarray(media.decode_image(encoded).convert("RGB"))
    return media.resize_frames(picture[None], settings["size_px"])


def _decode_audio(encoded: bytes, record: Record, settings: dict[str, Any]) -> np.ndarray:
    del record
    sound, _ = media.fit_audio(media.decode_audio(encoded), **settings)
    return np.round(sound.samples.clip(-1, 1) * 32767.0).astype(np.int16)


Decoder = Callable[[bytes, Record, dict[str, Any]], np.ndarray]
"""(encoded file, record, media settings of the model) -> the array that is stored."""

DECODERS: dict[str, Decoder] = {
    "video": _decode_video,
    "image": _decode_image,
    "audio": _decode_audio,
}
"""How a file in a shard is read, by modality name. Add your own here."""

ENDINGS: dict[str, tuple[str, ...]] = {
    "video": ("mp4", "webm", "mkv", "mov", "avi", "gif"),
    "image": ("jpg", "jpeg", "png", "webp"),
    "audio": ("flac", "wav", "mp3", "ogg"),
}
"""Bare endings (`KEY.jpg`) that say which modality a member is of."""

_HELD_OUT_OF = 8
_SPLITS: dict[str, Callable[[bool], bool]] = {
    "all": lambda _held_out: True,
    "trained": lambda held_out: not held_out,
    "held-out": lambda held_out: held_out,
}
"""Which items a split takes, by whether the hash of their key holds them out."""

SOURCES: dict[str, Any] = {"world": WorldConfig, "shards": ShardsConfig}
"""Configuration class of every kind of source, by the `kind` a recipe names. Add your own here."""


def source_config(name: str, table: dict[str, Any], where: str) -> Any:
    """Return the configuration of the source `name` from its table in a recipe."""
    kind = table.get("kind", "")
    if kind not in SOURCES:
        raise ConfigError(f"{where}: [data.{name}] " + unknown("kind", kind, SOURCES))
    rest = {key: value for key, value in table.items() if key != "kind"}
    return build(SOURCES[kind], rest, f"{where}: data.{name}")
