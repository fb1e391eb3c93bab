"""Models in folders: `config.toml` and `<part>/<role>.safetensors`, read part by part.

Files over a size limit are split into numbered pieces. No pickle is read or written. For use, a
part is mapped from its file (`open_part`) and put on a device (`find_device`); for training, its
own tensors are filled (`load_part`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from codi.build import Model, ModelConfig, load_config, with_files_in
from codi.config import ConfigError, to_toml, unknown
from codi.folders import PRESETS, SHIPPED
from codi.media import atomic_path, atomic_write_text
from codi.nn.precision import held

ORIGIN = "origin.json"
"""File in which `codi convert` keeps where the parts came from, and what would bring the others."""

PIECE_BYTES = 15 * 2**20
"""Largest file written; the next tensors go to a further piece."""


def find_model(name_or_folder: str | Path) -> Path:
    """Return the folder of a model: one given as a path, or one shipped under this name.

    Raises:
        ConfigError: neither exists; names the nearest shipped model, or what would become one: a
            run's folder, a preset without weights, a recipe.
    """
    if not isinstance(name_or_folder, str | Path):
        raise ConfigError(f"model: expected a name or a folder, got {name_or_folder!r}")
    given, name = Path(name_or_folder), str(name_or_folder)
    for folder in (given, SHIPPED / name):
        if (folder / "config.toml").is_file():
            return folder
    if (given / "model" / "config.toml").is_file():
        raise ConfigError(f"{given} is a run's folder; its model is {given / 'model'}")
    if (PRESETS / f"{name}.toml").is_file() and name.startswith("recipe-"):
        raise ConfigError(
            f"{name} is a recipe; codi train {name} --out DIR makes its model, in DIR/model"
        )
    if (PRESETS / f"{name}.toml").is_file():
        raise ConfigError(
            f"model {name!r} is a preset without weights; train it (codi train RECIPE --out DIR "
            f"makes DIR/model) or convert published weights (codi convert SOURCE --to DIR "
            f"--model {name}), and give that folder"
        )
    shipped = [p.parent.name for p in sorted(SHIPPED.glob("*/config.toml"))]
    raise ConfigError(
        unknown("model", name, shipped)
        + "; a folder with a config.toml, as `codi train` writes it, works too"
    )


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device that a name stands for, which has held a number and given it back.

    Args:
        name: "cpu", "cuda:1" ...; "auto" takes a GPU where there is one.

    Raises:
        ConfigError: there is none of this name here, or it holds shapes alone (meta).
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            device = torch.device(name)
            torch.zeros(1, device=device).item()
    # Names of backends that are plugins of torch (hpu) make it import what is not there.
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        raise ConfigError(f"device {str(name)!r} is not available here; use cpu") from error
    for warning in said:  # of a device that works; for one that does not, the error says it all
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return device


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
    module.load_state_dict(_fitting(module, folder, part))


def open_part(
    config: ModelConfig,
    folder: Path,
    part: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    compute_dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return a part with its weights, which never exist twice: built without any, then given them.

    Tensors that are stored in `dtype` stay mapped from the file, where the part lies on the CPU, so
    that they take no memory of this process; others are converted one by one. With another
    `compute_dtype` each layer converts its weights while it runs (`codi.nn.precision`), and what is
    stored in as few bits as `dtype` has stays mapped as well.

    Raises:
        ConfigError: as `load_part`.
    """
    role, name = part.split(".", 1)
    shape = config.part(role, name)
    with _NoWeights():
        module = shape.build()
    if any(buffer.is_meta for buffer in _unsaved(module)):
        module = shape.build()  # its constants are made in a way that needs memory
    compute_dtype = compute_dtype or dtype
    state = _fitting(module, folder, part)
    parameters = {key for key, _ in module.named_parameters(remove_duplicate=False)}
    for key in list(state):
        tensor = state.pop(key)
        if not tensor.is_floating_point():
            state[key] = tensor.to(device)
        elif key in parameters:
            state[key] = held(tensor.to(device), dtype, compute_dtype)
        else:
            state[key] = tensor.to(device, dtype).to(compute_dtype)
    module.load_state_dict(state, assign=True)
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            wanted = compute_dtype if buffer.is_floating_point() else None
            owner._buffers[name] = buffer.to(device, wanted)
    return module.eval()


class _NoWeights(TorchFunctionMode):
    """Make the tensors that wait for weights on the meta device, and constants for real.

    Unlike `torch.device("meta")`, it leaves buffers that no file holds (positions, windows) what
    they are. Layers begin with empty or random tensors, constants never do. Initial values are
    skipped: to draw them without memory, torch imports libraries for longer than a part loads.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.rand, torch.randn) and kwargs.get("device") is None:
            kwargs.pop("generator", None)
            return torch.empty(*args, **kwargs | {"device": "meta"})
        name = getattr(func, "__name__", "").strip("_")
        changed = args[0] if args else kwargs.get("tensor")  # as torch.nn.init passes it
        if name in _INITIAL and isinstance(changed, Tensor) and changed.is_meta:
            return changed
        return func(*args, **kwargs)


_INITIAL = {
    *("constant", "copy", "fill", "normal", "ones", "orthogonal", "trunc_normal", "uniform"),
    *("kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "zero", "zeros"),
    *("mul", "rmul", "truediv"),
}
"""Operations, less their underscores, that give a tensor its first values and keep its shape."""


def _unsaved(module: nn.Module) -> Iterator[Tensor]:
    """Return the buffers that are not in the state of a module."""
    saved = module.state_dict().keys()
    return (buffer for name, buffer in module.named_buffers() if name not in saved)


def require_files(folder: Path, part: str) -> list[Path]:
    """Return the files that hold a part ("role.name").

    Raises:
        ConfigError: there are none.
    """
    files = part_files(folder, part)
    if not files:
        raise lacking(folder, part)
    return files


def _fitting(module: nn.Module, folder: Path, part: str) -> dict[str, Tensor]:
    """Return the mapped tensors of a part's files, which fit the module exactly."""
    files = require_files(folder, part)
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
    return state


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
    """Write all parts that are present, and the configuration: the model's own, or `config`.

    Files that the configuration names, such as a tokenizer, are copied along.
    """
    folder.mkdir(parents=True, exist_ok=True)
    movable = with_files_in(config or model.config, folder)
    atomic_write_text(folder / "config.toml", to_toml(movable))
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
