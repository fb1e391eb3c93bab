"""Models in folders: `config.toml` and `<part>/<role>.safetensors`, read part by part.

Files over a size limit are split into numbered pieces. No pickle is read or written.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from codi.build import Model, ModelConfig, load_config
from codi.config import ConfigError, to_toml, unknown
from codi.media import atomic_path, atomic_write_text

SHIPPED = Path(__file__).parent / "weights"
"""Folder of the models whose trained weights ship with the package."""

ORIGIN = "origin.json"
"""File in which `codi convert` keeps where the parts came from, and what would bring the others."""

PIECE_BYTES = 15 * 2**20
"""Largest file written; the next tensors go to a further piece."""


def find_model(name_or_folder: str | Path) -> Path:
    """Return the folder of a model: one given as a path, or one shipped under this name.

    Raises:
        ConfigError: neither exists; names the nearest shipped model.
    """
    for folder in (Path(name_or_folder), SHIPPED / str(name_or_folder)):
        if (folder / "config.toml").is_file():
            return folder
    shipped = [p.parent.name for p in sorted(SHIPPED.glob("*/config.toml"))]
    raise ConfigError(
        unknown("model", str(name_or_folder), shipped)
        + "; a folder with a config.toml, as `codi train` writes it, works too"
    )


def part_stem(folder: Path, part: str) -> Path:
    """Return the path of a part's file without its ending."""
    role, name = part.split(".", 1)
    return folder / name / role.removesuffix("s")


def part_files(folder: Path, part: str) -> list[Path]:
    """Return the files that hold a part ("role.name"), in order."""
    stem = part_stem(folder, part)
    single = stem.with_suffix(".safetensors")
    return [single] if single.is_file() else sorted(stem.parent.glob(f"{stem.name}-*.safetensors"))


def save_part(module: nn.Module, folder: Path, part: str, dtype: torch.dtype | None = None) -> None:
    """Write one part, floating-point tensors in `dtype` (as they are by default)."""
    stem = part_stem(folder, part)
    stem.parent.mkdir(parents=True, exist_ok=True)
    pieces: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in module.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        if pieces[-1] and size + tensor.nbytes > PIECE_BYTES:
            pieces.append({})
            size = 0
        pieces[-1][key] = tensor
        size += tensor.nbytes
    old = part_files(folder, part)
    names = (
        [stem.with_suffix(".safetensors")]
        if len(pieces) == 1
        else [stem.with_name(f"{stem.name}-{i:03d}.safetensors") for i in range(len(pieces))]
    )
    for path, piece in zip(names, pieces, strict=True):
        with atomic_path(path) as temporary:
            save_file(piece, str(temporary))
    for path in set(old) - set(names):
        path.unlink()


def load_part(module: nn.Module, folder: Path, part: str) -> None:
    """Fill a part with its weights; every key must be there, and none may be left over.

    Raises:
        ConfigError: a missing or damaged file, missing keys, unused keys or other shapes.
    """
    files = part_files(folder, part)
    if not files:
        raise lacking(folder, part)
    state = dict(_tensors(files))
    own = module.state_dict()
    wrong = [f"{key}: missing" for key in own.keys() - state.keys()]
    wrong += [f"{key}: not used by the model" for key in state.keys() - own.keys()]
    wrong += [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise ConfigError(f"{files[0]}: does not fit: " + "; ".join(sorted(wrong)[:5]) + more)
    module.load_state_dict(state)


def lacking(folder: Path, part: str) -> ConfigError:
    """Return the error for a part that a folder does not hold, with what would bring it."""
    expected = part_stem(folder, part).with_suffix(".safetensors")
    source = read_origin(folder).get("absent", {}).get(part)
    mend = f"; it comes with {source}: codi convert FILE --to {folder}" if source else ""
    return ConfigError(f"{expected}: no such file; the model in {folder} lacks {part!r}{mend}")


def read_origin(folder: Path) -> dict[str, Any]:
    """Return what `codi convert` kept about a folder; nothing where it did not make it."""
    try:
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for path in files:
        try:
            with safe_open(path, framework="pt") as archive:
                for key in archive.keys():  # noqa: SIM118 - not a dict
                    yield key, archive.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path}: damaged or unreadable ({error}); fetch it again") from error


def save_model(
    model: Model,
    folder: Path,
    dtype: torch.dtype | None = None,
    config: ModelConfig | None = None,
) -> None:
    """Write all parts that are present, and the configuration: the model's own, or `config`."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "config.toml", to_toml(config or model.config))
    for part in model.config.parts():
        role, name = part.split(".", 1)
        if name in model.role(role):
            save_part(model.role(role)[name], folder, part, dtype)


def load_model(
    name_or_folder: str | Path,
    parts: Collection[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """Return the trained model of a folder or shipped name, with only `parts` ("role.name")."""
    folder = find_model(name_or_folder)
    config = load_config(folder)
    model = Model(config, parts)
    for part in config.parts() if parts is None else parts:
        role, name = part.split(".", 1)
        load_part(model.role(role)[name], folder, part)
    return model.to(device=device, dtype=dtype).eval()


def missing_parts(folder: Path, config: ModelConfig) -> list[str]:
    """Return the parts ("role.name") that have no file in `folder`."""
    return [part for part in config.parts() if not part_files(folder, part)]
