"""Strict configuration: TOML tables to frozen dataclasses, and back.

A dataclass is its own schema. `build` reads a table by the type hints of the fields and turns
every doubt into a `ConfigError` that names the file, the dotted key and the mend; nothing is
guessed, converted or ignored. `to_toml` writes a configuration so that reading it gives the same
values. This module knows no model, no modality and no preset, and never imports torch.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import difflib
import functools
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union

T = TypeVar("T")
Table = dict[str, Any]

_LINE_WIDTH = 100
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_UNPRINTABLE = re.compile(r'[\x00-\x1f\x7f"\\]')
_SCALARS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    Path: "a path (a string)",
}


class ConfigError(ValueError):
    """A configuration that cannot be read or written; the message is one line with the mend."""


# Names ------------------------------------------------------------------------------------------


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Find the choice that `name` was probably meant to be, whatever its case.

    Returns:
        The closest choice, or None where nothing is close.

    >>> nearest("dimm", ["ddim", "euler"])
    'ddim'
    >>> nearest("zebra", ["ddim", "euler"]) is None
    True
    """
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """Compose the message for a name that does not exist.

    Args:
        kind: What the name should have been, such as `"sampler"`.
        name: The name that was given.
        choices: The names that exist, in the order in which to list them.

    >>> unknown("sampler", "dimm", ["ddim", "euler"])
    "unknown sampler 'dimm'; did you mean 'ddim'? known: ddim, euler"
    """
    listed = list(choices)
    close = nearest(name, listed)
    mend = f"did you mean {close!r}? " if close else ""
    return f"unknown {kind} {name!r}; {mend}known: {', '.join(listed) or 'none'}"


# Reading ----------------------------------------------------------------------------------------


def load_toml(path: str | Path) -> Table:
    """Read a TOML file into a table.

    Raises:
        ConfigError: If the file cannot be opened or is not TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error


def build(cls: type[T], table: Mapping[str, Any], where: str | Path) -> T:
    """Build a dataclass from a table by the type hints of its fields.

    Understood hints: `bool`, `int`, `float` (integers are accepted), `str`, `Path`, `Literal`,
    `list`, `tuple` (of fixed or any length), `dict[str, ...]`, unions (the first member that fits
    wins), `Any`, and other dataclasses. TOML has no null: None is written by leaving the key out.
    A `ValueError` from a dataclass's own `__post_init__` gains the place it happened at.

    Args:
        cls: The dataclass.
        table: Its values, as `tomllib` reads them.
        where: What to call the source in messages: a file, or a word such as `"--set"`.

    Raises:
        ConfigError: If a key is unknown, missing, or of the wrong type.
        TypeError: If `cls` has a hint that this reader does not know (a programming error).

    >>> @dataclasses.dataclass(frozen=True)
    ... class Sampling:
    ...     steps: int
    ...     eta: float = 0.0
    >>> build(Sampling, {"steps": 50, "eta": 1}, "sampling.toml")
    Sampling(steps=50, eta=1.0)
    >>> build(Sampling, {"step": 50}, "sampling.toml")
    Traceback (most recent call last):
    codi.config.ConfigError: sampling.toml: unknown key 'step'; did you mean 'steps'? known: ...
    """
    built: T = _read_dataclass(cls, table, _Place(str(where)))
    return built


def override(table: Mapping[str, Any], assignments: Iterable[str]) -> Table:
    """Set values of a table from the command line, as in `--set train.steps=100`.

    The text after the first `=` is read as TOML, or else taken as the string it is. A part of the
    key that is a number picks from an array: `stages.0.steps=10`. Sections that do not exist are
    made: whether they are allowed is for `build` to say.

    Args:
        table: The values to start from; left as they are.
        assignments: Texts of the form `a.b=value`.

    Returns:
        A new table.

    Raises:
        ConfigError: If an assignment has no `=` or leads through something that is not a table.

    >>> override({"train": {"steps": 10}}, ["train.steps=20", "train.name=short run"])
    {'train': {'steps': 20, 'name': 'short run'}}
    """
    result = copy.deepcopy(dict(table))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise ConfigError(f"--set {assignment!r}: expected key=value, such as train.steps=100")
        place = _Place("--set")
        node: Any = result
        for part in parts[:-1]:
            node, place = _descend(node, part, place), place.at(part)
        slot = _slot(node, parts[-1], place)
        node[slot] = _read_text(text.strip())
    return result


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a value stands: its source and the keys that lead to it."""

    source: str
    path: str = ""

    def at(self, key: str | int) -> _Place:
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if self.path else key
        return dataclasses.replace(self, path=self.path + step)

    def error(self, message: str) -> ConfigError:
        return ConfigError(f"{self.source}: {message}")

    def refuse(self, expected: str, value: object) -> NoReturn:
        subject = f"key {self.path!r}" if self.path else "the file"
        raise self.error(f"{subject}: expected {expected}, got {_describe(value)}")


def _read_dataclass(cls: Any, value: Any, place: _Place) -> Any:
    if not isinstance(value, Mapping):
        place.refuse("a table", value)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in value:
        if key not in fields:
            raise place.error(_unknown_key(key, fields, place))
    values = {key: _read(_hints(cls)[key], item, place.at(key)) for key, item in value.items()}
    for name, field in fields.items():
        if name not in values and not _has_default(field):
            expected = _expected(_hints(cls)[name])
            raise place.error(f"missing key {place.at(name).path!r}: expected {expected}")
    try:
        return cls(**values)
    except ValueError as error:
        raise place.error(f"{place.path}: {error}" if place.path else str(error)) from error


def _unknown_key(key: str, known: Iterable[str], place: _Place) -> str:
    close = nearest(key, known)
    mend = f"did you mean {place.at(close).path!r}? " if close else ""
    return f"unknown key {place.at(key).path!r}; {mend}known: {', '.join(known) or 'none'}"


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(hint: Any, value: Any, place: _Place) -> Any:
    if hint is Any:
        return value
    if hint in _SCALARS:
        return _read_scalar(hint, value, place)
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, value, place)
    reader = _READERS.get(typing.get_origin(hint) or hint)
    if reader is None:
        raise TypeError(f"{place.path}: config.build cannot read values of type {hint}")
    return reader(hint, value, place)


def _read_scalar(hint: Any, value: Any, place: _Place) -> Any:
    accepted = {float: (int, float), Path: (str,)}.get(hint, (hint,))
    # bool is an int to Python; to the author of a file it is a mistake.
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        place.refuse(_SCALARS[hint], value)
    return hint(value)


def _read_literal(hint: Any, value: Any, place: _Place) -> Any:
    choices = typing.get_args(hint)
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    if isinstance(value, str) and all(isinstance(choice, str) for choice in choices):
        raise place.error(f"key {place.path!r}: {unknown('value', value, choices)}")
    place.refuse(_expected(hint), value)


def _read_items(item_hint: Any, value: Any, place: _Place) -> list[Any]:
    if not isinstance(value, list | tuple):
        place.refuse("an array", value)
    return [_read(item_hint, item, place.at(index)) for index, item in enumerate(value)]


def _read_list(hint: Any, value: Any, place: _Place) -> list[Any]:
    (item_hint,) = typing.get_args(hint) or (Any,)
    return _read_items(item_hint, value, place)


def _read_tuple(hint: Any, value: Any, place: _Place) -> tuple[Any, ...]:
    item_hints = typing.get_args(hint) or (Any, ...)
    if item_hints[-1] is Ellipsis:
        return tuple(_read_items(item_hints[0], value, place))
    if not isinstance(value, list | tuple) or len(value) != len(item_hints):
        place.refuse(f"an array of {len(item_hints)}", value)
    pairs = enumerate(zip(item_hints, value, strict=True))
    return tuple(_read(item_hint, item, place.at(index)) for index, (item_hint, item) in pairs)


def _read_dict(hint: Any, value: Any, place: _Place) -> Table:
    if not isinstance(value, Mapping):
        place.refuse("a table", value)
    key_hint, item_hint = typing.get_args(hint) or (str, Any)
    if key_hint is not str:
        raise TypeError(f"{place.path}: the keys of a TOML table are strings, not {key_hint}")
    return {key: _read(item_hint, item, place.at(key)) for key, item in value.items()}


def _read_union(hint: Any, value: Any, place: _Place) -> Any:
    members = [member for member in typing.get_args(hint) if member is not types.NoneType]
    tables = [member for member in members if dataclasses.is_dataclass(member)]
    # Where only one member can be meant, its own message is the clearer one.
    likely = tables if isinstance(value, Mapping) and len(tables) == 1 else members
    if len(likely) == 1:
        return _read(likely[0], value, place)
    reasons = []
    for member in likely:
        try:
            return _read(member, value, place)
        except ConfigError as error:
            reasons.append(str(error).removeprefix(f"{place.source}: "))
    raise place.error(f"key {place.path!r}: expected {_expected(hint)} ({' | '.join(reasons)})")


_READERS: dict[Any, Callable[[Any, Any, _Place], Any]] = {
    Literal: _read_literal,
    list: _read_list,
    tuple: _read_tuple,
    dict: _read_dict,
    Union: _read_union,
    types.UnionType: _read_union,
}


def _expected(hint: Any) -> str:
    """Say in words what a hint accepts."""
    origin = typing.get_origin(hint) or hint
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    if _READERS.get(origin) is _read_union:
        members = [item for item in typing.get_args(hint) if item is not types.NoneType]
        return " or ".join(dict.fromkeys(_expected(member) for member in members))
    if origin in (list, tuple):
        return "an array"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a table"
    return _SCALARS.get(hint, "a value")


def _describe(value: object) -> str:
    """Say in words what was found in a file."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return f"an array of {len(value)}"
    return f"{value!r} ({type(value).__name__})"


def _read_text(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    # No configuration here holds a date, so 2024-05-01 is a name; a second line is no value.
    is_text = len(parsed) > 1 or isinstance(value, datetime.date | datetime.time)
    return text if is_text else value


def _slot(node: Any, part: str, place: _Place) -> str | int:
    """Turn one part of a dotted key into a key of a table or a position in an array."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise place.error(f"{place.at(part).path!r}: {place.path!r} is not a table")
    if not part.isdecimal() or int(part) >= len(node):
        mend = f"expected a number from 0 to {len(node) - 1}" if node else "the array is empty"
        raise place.error(f"{place.at(part).path!r}: {mend}")
    return int(part)


def _descend(node: Any, part: str, place: _Place) -> Any:
    slot = _slot(node, part, place)
    return node.setdefault(slot, {}) if isinstance(node, dict) else node[slot]


# Writing ----------------------------------------------------------------------------------------


def to_table(config: Any) -> Table:
    """Turn a dataclass or a mapping into a plain table, the inverse of `build`.

    Tuples become lists, paths become strings, and fields that are None are left out.

    Raises:
        ConfigError: If a value has no TOML form, or is None where leaving the key out would mean
            something else.
    """
    place = _Place(type(config).__name__)
    if dataclasses.is_dataclass(config) or isinstance(config, Mapping):
        plain: Table = _plain(config, place)
        return plain
    place.refuse("a dataclass or a table", config)


def to_toml(config: Any) -> str:
    """Write a dataclass or a table as TOML text that reads back as the same values.

    Raises:
        ConfigError: As `to_table`.

    >>> print(to_toml({"name": "tiny", "model": {"widths": (32, 64)}}), end="")
    name = "tiny"
    <BLANKLINE>
    [model]
    widths = [32, 64]
    """
    return "\n".join(_section(to_table(config), keys=(), header="")).lstrip("\n")


def _plain(value: Any, place: _Place) -> Any:
    if dataclasses.is_dataclass(value):
        items = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        present = [
            (field.name, item) for field, item in items if field.init and _is_kept(field, item)
        ]
        return {name: _plain(item, place.at(name)) for name, item in present}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise place.error(f"key {key!r} of {place.path!r} is not a string")
        return {key: _plain(item, place.at(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, place.at(index)) for index, item in enumerate(value)]
    if isinstance(value, Path):
        return value.as_posix()
    if not isinstance(value, bool | int | float | str):
        place.refuse("a value that TOML can hold", value)
    return value


def _is_kept(field: dataclasses.Field[Any], value: Any) -> bool:
    """Tell whether a field is written; None is written by leaving it out where that is its default.

    A None that is not the default is kept, so that `_plain` refuses it by name.
    """
    return value is not None or field.default is not None


def _section(table: Table, keys: tuple[str, ...], header: str) -> list[str]:
    """Write one table: its own values first, then its sub-tables, each under its header."""
    tables = {key: item for key, item in table.items() if isinstance(item, dict)}
    arrays = {key: item for key, item in table.items() if _is_array_of_tables(item)}
    own = {
        key: item for key, item in table.items() if not isinstance(item, dict) and key not in arrays
    }
    lines = [f"{_key(key)} = {_wrapped(_key(key), item)}" for key, item in own.items()]
    if header:
        lines = ["", header, *lines]
    for key, item in tables.items():
        inner = (*keys, key)
        lines += _section(item, inner, f"[{_dotted(inner)}]")
    for key, items in arrays.items():
        inner = (*keys, key)
        for item in items:
            lines += _section(item, inner, f"[[{_dotted(inner)}]]")
    return lines if keys else [*lines, ""]


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _wrapped(key: str, value: Any) -> str:
    text = _inline(value)
    if not isinstance(value, list) or len(key) + len(" = ") + len(text) <= _LINE_WIDTH:
        return text
    return "[\n" + "".join(f"    {_inline(item)},\n" for item in value) + "]"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        items = ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items())
        return f"{{{items}}}"
    if isinstance(value, list):
        return f"[{', '.join(_inline(item) for item in value)}]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    # Subclasses (a NumPy float) print themselves in their own way: print the plain number.
    return repr(float(value)) if isinstance(value, float) else repr(int(value))


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _quoted(key)


def _dotted(keys: Sequence[str]) -> str:
    return ".".join(_key(key) for key in keys)


def _quoted(text: str) -> str:
    """Quote a string, escaping what a TOML basic string may not hold as it is."""
    escaped = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return f'"{escaped}"'
