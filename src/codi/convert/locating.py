"""From what a user names to files of weights: a file, a folder of a library's layout, a hub name.

Which files of a folder (or of a repository) are weights, and which are the same weights again, is
decided from their names alone; what is in them, their contents say (`codi.convert.sources`).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from codi.config import ConfigError
from codi.convert.reading import INDEX, Checkpoint, open_checkpoint
from codi.encoders.published import external_library, unreachable
from codi.hub import may_be_of_hub

ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
"""How names of files of weights end; of two with the same weights, the first ending is taken."""

ANSWER_S = 10.0
"""How long the hub is waited for before what was fetched earlier is used."""

_LIBRARY_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""Names that the libraries give to weights; beside them lie variants of the same."""

_PIECE = re.compile(r"-\d{5}-of-\d{5}(\.[\w-]+)?$")
"""How a piece is named before its ending; a variant's name may stand after the numbers."""
_MODEL_INDEX = "model_index.json"


def open_source(source: str) -> list[Checkpoint]:
    """Open all weights that a file, a folder or a name of the hub holds.

    Raises:
        ConfigError: there is no such thing, or it holds no weights.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path)
    if path.exists() or "/" not in source or not may_be_of_hub(source) or _is_file(source):
        if not path.exists():
            raise ConfigError(
                f"{source}: no such file or folder; name a file of weights, a folder that holds "
                "them, or OWNER/NAME of the hub"
            )
        return [open_checkpoint(path)]
    return _open_folder(fetch(source))


def _is_file(source: str) -> bool:
    return source.endswith(ENDINGS)


def weights_among(
    names: Iterable[PurePosixPath], folders: Iterable[str] | None = None
) -> list[PurePosixPath]:
    """Choose the files to read among the names of a folder, without reading the same twice.

    Args:
        names: paths relative to the folder, of which two levels count.
        folders: the only subfolders that count, as a pipeline's index lists them; None for all,
            and for the folder itself.

    >>> weights_among([PurePosixPath(n) for n in ("model.safetensors", "pytorch_model.bin")])
    [PurePosixPath('model.safetensors')]
    """
    allowed = None if folders is None else set(folders)
    by_folder: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for name in names:
        inside = name.parts[0] if len(name.parts) == 2 else ""
        if len(name.parts) <= 2 and (allowed is None or inside in allowed):
            by_folder[name.parent].append(name)
    chosen = []
    for folder in sorted(by_folder):
        chosen += _of_folder(by_folder[folder])
    return chosen


def _of_folder(names: list[PurePosixPath]) -> list[PurePosixPath]:
    """Choose among the files of one folder: a library's one set of weights, or all of them."""
    ranked: dict[str, list[tuple[int, PurePosixPath]]] = defaultdict(list)
    for name in names:
        index = INDEX.search(name.name)
        plain = name.name[: index.start()] if index else name.name
        ending = next((e for e in ENDINGS if plain.endswith(e)), None)
        stem = plain.removesuffix(ending or "") + ((index and index[1]) or "")
        if ending is None or _PIECE.search(stem):
            continue
        is_index = index is not None
        ranked[stem].append((2 * ENDINGS.index(ending) + (not is_index), name))
    best = {stem: min(found)[1] for stem, found in ranked.items()}
    for stem in _LIBRARY_STEMS:
        if stem in best:
            return [best[stem]]
    variants = [stem for stem in best if stem.partition(".")[0] in _LIBRARY_STEMS]
    if variants:  # such as model.fp16.safetensors alone
        return [best[min(variants, key=len)]]
    return [best[stem] for stem in sorted(best)]


def _open_folder(folder: Path) -> list[Checkpoint]:
    names = [
        PurePosixPath(path.relative_to(folder).as_posix())
        for pattern in ("*", "*/*")
        for path in folder.glob(pattern)
        if path.is_file()
    ]
    components = _components(folder / _MODEL_INDEX)
    chosen = weights_among(names, components)
    _require_indices(folder, names, chosen, components)
    if not chosen:
        raise ConfigError(
            f"{folder}: holds no weights ({', '.join('*' + e for e in ENDINGS)}), nor do its "
            "folders; name the folder or file that does"
        )
    return [open_checkpoint(folder / name) for name in chosen]


def _require_indices(
    folder: Path,
    names: Iterable[PurePosixPath],
    chosen: Iterable[PurePosixPath],
    components: list[str] | None,
) -> None:
    """Check that no folder has pieces of weights only, and nothing that says how they belong.

    Raises:
        ConfigError: one has.
    """
    read = {name.parent for name in chosen}
    for name in sorted(names):
        counts = components is None or name.parts[0] in components
        ending = next((e for e in ENDINGS if name.name.endswith(e)), None)
        stem = name.name.removesuffix(ending or "")
        if ending and counts and name.parent not in read and _PIECE.search(stem):
            whole = _PIECE.sub("", stem)
            raise ConfigError(
                f"{folder / name}: is a piece of weights, and the index of the pieces "
                f"({whole}{ending}.index.json) is not beside it; fetch that too"
            )


def _components(index: Path) -> list[str] | None:
    """Return the folders of a pipeline, as its index names them; None where there is no index."""
    if not index.is_file():
        return None
    try:
        table = json.loads(index.read_text(encoding="utf-8"))
        return [name for name, what in table.items() if isinstance(what, list) and any(what)]
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{index}: is not a pipeline's index ({error}); fetch it again"
        ) from error


def fetch(name: str) -> Path:
    """Return the folder of a name of the hub: the cached one, filled where there is a network.

    Only the files that will be read are fetched: weights once, and the small files beside them.

    Raises:
        ConfigError: no library, no network and nothing cached, or no such name.
    """
    hub: Any = external_library("huggingface_hub", f"fetching {name!r}")
    try:
        # Unlike a list of files, this is asked for once: without a network it fails at once.
        about = hub.model_info(name, timeout=ANSWER_S)
        files = [PurePosixPath(sibling.rfilename) for sibling in about.siblings or []]
    except Exception as error:  # the hub's own errors, and those of three libraries below it
        try:
            return Path(hub.snapshot_download(name, local_files_only=True))
        except Exception:
            raise unreachable("weights", name, error) from error
    has_index = any(str(file) == _MODEL_INDEX for file in files)
    top = {file.parts[0] for file in files if len(file.parts) == 2}
    weights = weights_among(files, top if has_index else None)
    small = ["*.json", "*.txt", "*.model"]
    pieces = [f"{file.parent}/*-of-*" for file in weights if INDEX.search(file.name)]
    wanted = [*small, *map(str, weights), *(piece.removeprefix("./") for piece in pieces)]
    try:
        return Path(hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:
        raise unreachable("weights", name, error) from error
