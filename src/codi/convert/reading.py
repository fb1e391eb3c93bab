"""Files of weights, opened without running anything in them, and read tensor by tensor.

Safetensors and torch's zip archives are mapped into memory, so that a file of any size costs no
memory of its own. A pickle is only ever read by `torch.load(weights_only=True)`, which refuses
whatever is not a tensor or a plain container. What a file is, its first bytes say, not its name.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codi.config import ConfigError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types of tensors by their names in a safetensors file."""

INDEX = re.compile(r"\.index(\.[\w-]+)?\.json$")
"""How the name of the file ends that lists the pieces of a checkpoint, or of a variant of it."""

PREPARATION = "preprocessor_config"
"""The file, and the key in what is known about weights, of how pictures or sounds are prepared."""

_PROCESSOR, _OF_PROCESSOR = "processor_config", ("image_processor", "feature_extractor")
"""The file where `transformers` 5 has the same, beside how words are, and its names there."""

PREPARATIONS = (PREPARATION, _PROCESSOR)
"""The files that tell how pictures or sounds are prepared, the one that is read first before."""

HEADER_BYTES = 100_000_000
"""Longest header that a safetensors file may have."""

LEGACY_BYTES = 1280 * 2**20
"""Largest file of torch's old format that is read: it cannot be mapped, so all of it is loaded,
once. A conversion takes 0.5 GiB beside it, and less than 2 GiB of memory altogether."""

_NESTED = ("state_dict", "model_state_dict", "model", "module", "params", "weights", "generator")
_AVERAGED = ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema")
_INERT_MODULES = ("pytorch_lightning.", "lightning.", "lightning_fabric.")
"""Libraries whose objects lie beside the weights in published files; they are read as nothing."""

_INERT = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
"""What makes the single numbers that such objects keep, the best score say: nothing as well."""

_REFETCH = "delete it and fetch it again"


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: what it is, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file (or of its pieces) by name, none of them read yet.

    Attributes:
        path: the file, for messages; the index where there are pieces.
        stored: its tensors by name.
        about: what a `config.json` beside it says; under one of `PREPARATIONS` how pictures or
            sounds are prepared, where the file of that name beside it says that too.
        notes: what was chosen among several things in the file, a line each.
    """

    path: Path
    stored: dict[str, Stored]
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a file of weights, or the index of several.

    Raises:
        ConfigError: missing, damaged, not a file of weights, or one that holds more than weights.
    """
    opened = _open(path)
    return replace(opened, stored=_without_weight_norm(opened.stored))


def _open(path: Path) -> Checkpoint:
    if INDEX.search(path.name):
        return _open_pieces(path)
    head = _head(path)
    if head[:4] == b"PK\x03\x04":
        return _open_torch(path, mapped=True)
    if _is_safetensors(head, path.name):
        return Checkpoint(path, _open_safetensors(path), _about(path))
    if head[:1] == b"\x80":
        return _open_legacy(path)
    raise ConfigError(f"{path}: {_what_else(head)}")


def _is_safetensors(head: bytes, name: str) -> bool:
    """Say whether a file begins with the length of a JSON header, and the header.

    The length's first byte may be that of a pickle too; no pickle has the zeros that end a length
    which safetensors allows. Of a file too short for a header, its name says what it was.
    """
    possible = int.from_bytes(head[:8], "little") <= HEADER_BYTES
    if len(head) < 9:
        return possible and head[:1] == b"\x80" and name.endswith(".safetensors")
    return head[8:9] == b"{" and (possible or head[:1] != b"\x80")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder; name a file in it") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check the name") from error
    if not head:
        raise ConfigError(f"{path}: is empty (0 bytes); {_REFETCH}")
    return head


def _what_else(head: bytes) -> str:
    """Say what a file is that holds no weights, and the mend."""
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, not the weights; run `git lfs pull` in its folder"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return f"is a web page, not weights (a download that failed); {_REFETCH}"
    if start.startswith((b"{", b"[")):
        return "is JSON, not weights; give the file of weights or the folder that holds it"
    if start.startswith(b"gguf"):
        return "is a GGUF file, whose weights are rounded; give safetensors or a torch checkpoint"
    if start.startswith(b"\x89hdf"):
        return "is an HDF5 file; give safetensors or a torch checkpoint"
    return f"is neither safetensors nor a torch checkpoint, or is damaged; {_REFETCH}"


_NORMED = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
"""Length and direction of a weight under weight norm, in older and in newer torch files."""


def _without_weight_norm(stored: dict[str, Stored]) -> dict[str, Stored]:
    """Show every weight under weight norm as the one weight that it is, made when it is read."""
    merged = dict(stored)
    for lengths, directions in _NORMED:
        for name in [n for n in stored if n.endswith(f".{lengths}")]:
            stem = name.removesuffix(lengths)
            if stem + directions in merged:
                length, direction = merged.pop(name), merged.pop(stem + directions)
                merged[f"{stem}weight"] = _normed(length, direction)
    return merged


def _normed(length: Stored, direction: Stored) -> Stored:
    def read() -> Tensor:
        v, g = direction.read().float(), length.read().float()
        norm = v.flatten(1).norm(dim=1).view(g.shape)
        return (v * (g / norm)).to(direction.dtype)

    return Stored(direction.shape, direction.dtype, read)


# --- safetensors ---


def _open_safetensors(path: Path) -> dict[str, Stored]:
    size, wanted = path.stat().st_size, 8 + int.from_bytes(_head(path)[:8], "little")
    if size < min(wanted, 8 + HEADER_BYTES):
        raise ConfigError(
            f"{path}: damaged or cut short (truncated in its header, which has {wanted:,} bytes, "
            f"and the file {size:,}); {_REFETCH}"
        )
    try:
        archive = safe_open(path, framework="pt")
        return {name: _stored(archive, name, path) for name in archive.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: damaged or cut short ({reason}); {_REFETCH}") from error


def _stored(archive: Any, name: str, path: Path) -> Stored:
    piece = archive.get_slice(name)
    kind = piece.get_dtype()
    if kind not in DTYPES:
        raise ConfigError(f"{path}: {name} has the type {kind}; known: {', '.join(DTYPES)}")
    return Stored(tuple(piece.get_shape()), DTYPES[kind], lambda: archive.get_tensor(name))


def _open_pieces(path: Path) -> Checkpoint:
    """Open all pieces that an index names, each of which must hold what it says."""
    table = read_json(path)
    pieces = table.get("weight_map")
    if not isinstance(pieces, dict) or not all(isinstance(file, str) for file in pieces.values()):
        raise ConfigError(f"{path}: has no weight_map from names to files; {_REFETCH}")
    stored: dict[str, Stored] = {}
    for file in sorted(set(pieces.values())):
        if Path(file).name != file:
            raise ConfigError(f"{path}: names {file!r}, which is not in its folder; {_REFETCH}")
        if not path.with_name(file).exists():
            raise ConfigError(f"{path}: names {file!r}, which is not beside it; fetch that too")
        stored |= open_checkpoint(path.with_name(file)).stored
    lacking = [name for name in pieces if name not in stored]
    if lacking:
        raise ConfigError(f"{path}: {lacking[0]} is in none of its files; {_REFETCH}")
    return Checkpoint(path, stored, _about(path))


def _about(path: Path) -> dict[str, Any]:
    beside = path.with_name("config.json")
    if not beside.is_file():
        return {}
    about, prepared = read_json(beside), path.with_name(f"{PREPARATION}.json")
    if prepared.is_file():
        return about | {PREPARATION: read_json(prepared)}
    processor = path.with_name(f"{_PROCESSOR}.json")
    whole = read_json(processor) if processor.is_file() else {}
    told = [whole[name] for name in _OF_PROCESSOR if isinstance(whole.get(name), dict)]
    return about | {_PROCESSOR: told[0]} if told else about


def read_json(path: Path) -> dict[str, Any]:
    """Return what a small file beside weights says.

    Raises:
        ConfigError: it cannot be read, or holds no JSON object.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check the name") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON ({error}); {_REFETCH}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(table).__name__}")
    return table


# --- torch ---


class _Nothing:
    """What stands for an object of a training library: it takes anything and does nothing."""

    def __new__(cls, *_values: object, **_named: object) -> _Nothing:
        """Return an empty object, whatever is given."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Forget what the object held."""


def _open_legacy(path: Path) -> Checkpoint:
    size = path.stat().st_size
    if size > LEGACY_BYTES:
        raise ConfigError(
            f"{path}: has torch's format of before 2020, which cannot be read piece by piece, and "
            f"{size / 2**30:.1f} GiB, above {LEGACY_BYTES / 2**30:.2f}; save it anew where there "
            "is enough memory: "
            "torch.save(torch.load(FILE, weights_only=True), FILE)"
        )
    return _open_torch(path, mapped=False)


def _open_torch(path: Path, mapped: bool) -> Checkpoint:
    if mapped:
        _require_torch_archive(path)
    try:
        with torch.serialization.safe_globals(_inert(path) if mapped else []):
            if mapped:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:
                with path.open("rb") as file, warnings.catch_warnings():
                    # Of a pickle that is no checkpoint it warns before it refuses it.
                    warnings.simplefilter("ignore", UserWarning)
                    content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may do anything that a pickle can
        damage = _damage(path) if mapped else ""
        if isinstance(error, pickle.UnpicklingError) and not damage:
            raise ConfigError(f"{path}: {_refusal(str(error))}") from error
        reason = damage or str(error).strip().partition("\n")[0]
        raise ConfigError(f"{path}: damaged or cut short ({reason}); {_REFETCH}") from error
    found, notes = _state_dict(content, path)
    plain = {name: value.detach() for name, value in found.items() if isinstance(value, Tensor)}
    for name, value in plain.items():
        _require_plain(path, name, value)
    stored = {name: _in_memory(value) for name, value in _without_wrapper(plain)}
    return Checkpoint(path, stored, _about(path), notes)


def _require_torch_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            packed = [e.filename for e in archive.infolist() if e.compress_type]
    except (zipfile.BadZipFile, OSError) as error:
        raise ConfigError(f"{path}: damaged or cut short ({error}); {_REFETCH}") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise ConfigError(f"{path}: is a TorchScript program, not weights; give its state dict")
    if not any(name.endswith("/data.pkl") for name in names):
        raise ConfigError(f"{path}: is a zip archive of other things; unpack it and give a file")
    if packed:  # torch would map the compressed bytes as numbers
        raise ConfigError(
            f"{path}: {packed[0]} in it is compressed; torch writes its archives without, so load "
            "the unchanged file and save it again"
        )
    if path.suffix == ".safetensors":  # torch would read it by its name
        raise ConfigError(f"{path}: is a torch checkpoint, not safetensors; rename it to .pth")


def _damage(path: Path) -> str:
    """Return what is wrong with the pickle of a zip archive by the sum that is kept beside it."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("/data.pkl"):
                    archive.read(name)
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError) as error:
        return str(error)
    return ""


_PLAIN = {"quantized": "dequantize()", "nested": "to_padded_tensor(0)", "sparse": "to_dense()"}
"""Kind of tensor -> the call that makes a plain one of it."""


def _require_plain(path: Path, name: object, value: Tensor) -> None:
    """Check that a tensor has a name, and numbers of its own for every place.

    Raises:
        ConfigError: it has not; names the tensor and the mend.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"{path}: has a tensor under the key {name!r}, which is no name; save a state dict, "
            "whose keys are the names of the tensors"
        )
    if value.is_meta:
        raise ConfigError(
            f"{path}: {name} has a shape and no numbers (device meta); save the model once its "
            "weights are loaded"
        )
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        kind = "quantized" if value.is_quantized else "nested" if value.is_nested else "sparse"
        raise ConfigError(
            f"{path}: {name} is a {kind} tensor; save what its .{_PLAIN[kind]} returns"
        )


def _inert(path: Path) -> list[Any]:
    """Return stand-ins for the objects of training libraries that a file holds."""
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # whatever is wrong with the file, reading it says so in its own words
        return []
    harmless = [name for name in unknown if name.startswith(_INERT_MODULES) or name in _INERT]
    return [(type("Nothing", (_Nothing,), {}), name) for name in harmless]


def _refusal(reason: str) -> str:
    """Say why a pickle was not read: what it would have had to call, where that is known."""
    words = reason.replace("`", " ").replace("'", " ").split()
    named = [w.strip(".,:") for a, w in pairwise(words) if a == "GLOBAL"]
    what = f" ({named[0]})" if named else ""
    return (
        f"holds more than weights{what}; reading that could run code, so it was refused: "
        "get the file as safetensors, or from someone you trust saved as a plain state dict"
    )


def _state_dict(
    content: Any, path: Path, above: tuple[int, ...] = ()
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Find the tensors by name in what a file holds, and say what was chosen.

    `above` identifies the dictionaries around it, for a dictionary may contain itself.

    Raises:
        ConfigError: there are none.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: holds a {type(content).__name__}, not tensors by name")
    above = (*above, id(content))
    averaged = next(((key, v) for key, v in _dictionaries(content, _AVERAGED, above)), None)
    plain = next((value for _, value in _dictionaries(content, _NESTED, above)), None)
    if plain is not None:
        found, notes = _state_dict(plain, path, above)
    elif _has_tensors(content):
        found, notes = content, ()
    elif averaged is not None:
        return averaged[1], (f"{path.name}: the averaged weights {averaged[0]!r} are used",)
    else:
        keys = ", ".join(map(str, list(content)[:5]))
        raise ConfigError(f"{path}: holds no tensors by name, only: {keys or 'nothing'}")
    if averaged is not None and averaged[1].keys() == found.keys():
        return averaged[1], (
            f"{path.name}: the averaged weights {averaged[0]!r} are used, not the last ones",
        )
    return found, notes


def _dictionaries(
    content: Mapping[str, Any], names: tuple[str, ...], above: tuple[int, ...]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in names:
        value = content.get(name)
        if (
            isinstance(value, Mapping)
            and id(value) not in above
            and (_has_tensors(value) or _nests(value, above))
        ):
            yield name, value


def _has_tensors(content: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _nests(content: Mapping[str, Any], above: tuple[int, ...]) -> bool:
    return next(_dictionaries(content, _NESTED, (*above, id(content))), None) is not None


def _without_wrapper(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Drop the "module." that parallel training puts before every name."""
    wrapped = bool(tensors) and all(name.startswith("module.") for name in tensors)
    for name, value in tensors.items():
        yield name.removeprefix("module.") if wrapped else name, value


def _in_memory(value: Tensor) -> Stored:
    return Stored(tuple(value.shape), value.dtype, lambda: value)
