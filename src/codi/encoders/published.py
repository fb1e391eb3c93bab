"""Published encoders of the `transformers` library: imported when built, loaded when asked for.

It knows how to find a library and files, and what to say when they are missing; it knows no
modality and no architecture.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from codi.config import ConfigError


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
        ConfigError: no library, no such files, or a model of other sizes.
    """
    model = _from_pretrained(class_name, source).float()
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


def _from_pretrained(class_name: str, source: str) -> Any:
    published = getattr(transformers_library(), class_name)
    try:
        return published.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise unreachable(class_name, source, error) from error
