"""Published encoders of the `transformers` library: imported when built, loaded when asked for.

It knows how to find a library and files, and what to say when they are missing; it knows no
modality and no architecture.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from codi.config import ConfigError
from codi.hub import announce

NEVER_STORED = (
    "position_ids",
    "token_type_ids",
    "relative_position_index",
    "num_batches_tracked",
)
"""How names end of tensors that follow from the sizes: older files have them, newer ones do not."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Names of the library's files of weights, the one that it takes first."""

_SHOWN = 3
"""How many names of tensors an error shows."""


def transformers_library() -> Any:
    """Import and return `transformers`, which takes seconds and is not needed by default.

    Raises:
        ConfigError: it is not installed.
    """
    return external_library("transformers", "this encoder")


def external_library(name: str, needed_by: str) -> Any:
    """Import and return a library of the extra `external`; `needed_by` says what for.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{needed_by} needs the {name} library ({error}); "
            "install it with: pip install 'codi[external]'"
        ) from error


def unreachable(what: str, source: str, error: Exception) -> ConfigError:
    """Return the error for something published that is neither here nor on a hub within reach."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ConfigError(
        f"cannot load {what} from {source!r} ({reason}); give a folder that holds its "
        "files, or a name of the hub where there is a network"
    )


def builds_shapes_only() -> bool:
    """Say whether modules are being made on the meta device, where no weights can be loaded."""
    return torch.empty(0).is_meta


def load_published(class_name: str, source: str, sizes: Mapping[str, Any]) -> Any:
    """Return a model of the library with the weights of `source`, in float32.

    Args:
        class_name: class of `transformers` to load it as.
        source: a local folder, or a name of the hub.
        sizes: what its configuration must say, by the library's names.

    Raises:
        ConfigError: no library, no such files, weights that are not all of the model or have other
            shapes than its configuration says, or a model of other sizes.
    """
    # The library draws at random what a file lacks or has in another shape, and says so in a log.
    with _told_here():
        model, info = _from_pretrained(
            class_name, source, output_loading_info=True, ignore_mismatched_sizes=True
        )
    _require_whole(class_name, source, info)
    model = model.float()
    for name, wanted in sizes.items():
        found = getattr(model.config, name)
        plain = list(found) if isinstance(found, list | tuple) else found
        if plain != wanted:
            raise ConfigError(
                f"pretrained = {source!r} has {name} = {plain}, and this preset {wanted}; "
                "change the sizes of the preset's encoder to those of the published one"
            )
    return model


def load_published_tokenizer(class_name: str, source: str) -> Any:
    """Return a tokenizer of the library from a local folder or a name of the hub.

    Raises:
        ConfigError: no library, or no such files.
    """
    return _from_pretrained(class_name, source)


def load_published_config(class_name: str, source: str) -> Any:
    """Return a configuration of the library from a local folder or a name of the hub.

    Raises:
        ConfigError: no library, or no such files.
    """
    return _from_pretrained(class_name, source)


def _from_pretrained(class_name: str, source: str, **options: Any) -> Any:
    """Return what the library makes of a folder, or of a name of the hub, and say so then.

    Raises:
        ConfigError: neither; names the source and the mend.
    """
    published = getattr(transformers_library(), class_name)
    try:
        if not Path(source).exists():
            announce(source)
        return published.from_pretrained(source, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise unreachable(class_name, source, error) from error


@contextmanager
def _told_here() -> Iterator[None]:
    """Keep the library's own report of names quiet: what matters in it becomes an error."""
    log = transformers_library().logging
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(before)


def _require_whole(class_name: str, source: str, info: Mapping[str, Any]) -> None:
    """Check that every tensor of a model came from its file.

    Raises:
        ConfigError: one did not; names the file, the tensors and the mend.
    """
    lacking = sorted(key for key in info["missing_keys"] if not key.endswith(NEVER_STORED))
    if lacking:
        raise ConfigError(
            f"{_weights_of(source)}: lacks {_some(lacking)}, which a {class_name} needs; give the "
            "whole published model, or a complete file of it"
        )
    others = sorted(
        f"{key} is {tuple(found)} and takes {tuple(wanted)}"
        for key, found, wanted in info["mismatched_keys"]
    )
    if others:
        raise ConfigError(
            f"{_weights_of(source)}: {_some(others)}, by the config.json beside it; give weights "
            "and config.json of one model"
        )


def _weights_of(source: str) -> str:
    """Return the file of weights in a folder; a name of the hub as it is."""
    return next(
        (str(Path(source, name)) for name in _WEIGHTS if Path(source, name).is_file()), source
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
