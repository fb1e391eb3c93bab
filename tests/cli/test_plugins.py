"""Plugins: files and modules that are imported before the command line is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codi.cli import main
from codi.cli.plugins import load_plugin, plugins_of, split_plugins
from codi.config import ConfigError
from codi.modalities import base

SOURCE = """
from codi.modalities import Modality, register

register(Modality("smell", "a smell", "bin", f"{__name__}:SmellMedia"))
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test registers and imports."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("torch", "codi.", "numpy")):  # these cannot be imported twice
            del sys.modules[name]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "smell.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("words", "plugins", "others"),
    [
        (["generate", "--to", "text"], [], ["generate", "--to", "text"]),
        (["--plugin", "a.py", "--plugin=b", "data"], ["a.py", "b"], ["data"]),
        (["train", "--plugin", "a.py", "x"], ["a.py"], ["train", "x"]),
    ],
)
def test_plugins_are_told_from_the_other_words(
    words: list[str], plugins: list[str], others: list[str]
) -> None:
    assert split_plugins(words) == (plugins, others)


@pytest.mark.parametrize("words", [["--plugin"], ["--plugin=", "generate"]])
def test_a_plugin_without_a_name_is_an_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "--plugin: expected a Python file or a module" in capsys.readouterr().err


def test_a_file_registers_a_modality_and_its_options(
    plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--plugin", str(plugin), "generate", "--help"])
    printed = capsys.readouterr().out
    for word in ("--smell FILE", "--negative-smell FILE", "a smell to make something from"):
        assert word in printed


def test_the_variable_names_plugins_too(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CODI_PLUGINS", str(plugin))
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    assert "--smell FILE" in capsys.readouterr().out
    assert plugins_of({"CODI_PLUGINS": f"a.py{os.pathsep}b"}) == ["a.py", "b"]
    assert plugins_of({}) == []


def test_a_plugin_is_imported_once(plugin: Path) -> None:
    load_plugin(str(plugin))
    plugin.write_text("raise RuntimeError")
    load_plugin(str(plugin))
    assert "smell" in base.names()


def test_a_module_is_a_plugin(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plugin.parent)
    load_plugin("smell")
    assert base.modality("smell").media == "smell:SmellMedia"


@pytest.mark.parametrize("name", ["nowhere.py", "no_such_module", "codi.no_such_module"])
def test_a_plugin_that_is_not_there_is_one_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--plugin", name, "generate", "--help"]) == 2
    assert capsys.readouterr().err.startswith(f"codi: error: plugin '{name}': no such ")


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("\nimport no_such_module_at_all", 2, "ModuleNotFoundError: No module named 'no_such_"),
        ("def f(:\n  pass", 1, "SyntaxError: invalid syntax"),
        ("x = 1\nraise RuntimeError", 2, "RuntimeError; mend it"),
        ("raise ValueError('two\\nlines')", 1, "ValueError: two lines; mend it"),
        ("import json\n\njson.loads('{')", 3, "JSONDecodeError: Expecting property name"),
        ("exec('a b')", 1, "SyntaxError: invalid syntax (<string>, line 1)"),
        (SOURCE + SOURCE.replace("a smell", "another"), 8, "modality 'smell' "),
    ],
)
@pytest.mark.parametrize("by", ["file", "module"])
def test_what_fails_inside_a_plugin_is_one_line_with_its_place(
    by: str,
    source: str,
    line: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    name = str(path) if by == "file" else "faulty"
    assert main(["--plugin", name, "generate", "--help"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"codi: error: plugin '{name}': {path}, line {line}: {said}")
    assert printed.endswith("; mend it, or leave the plugin out\n")
    assert printed.count("\n") == 1
    assert not [name for name in sys.modules if name.endswith(("faulty", "faulty_py"))]


def test_a_plugin_that_nothing_can_import_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"plugin '\.up': TypeError: .*; mend it, or leave"):
        load_plugin(".up")


def test_a_plugin_may_end_the_command(tmp_path: Path) -> None:
    path = tmp_path / "leaving.py"
    path.write_text("raise SystemExit(7)")
    with pytest.raises(SystemExit) as stop:
        load_plugin(str(path))
    assert stop.value.code == 7
    assert not [name for name in sys.modules if "leaving" in name]


def test_the_cause_of_an_error_inside_a_plugin_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    with pytest.raises(ConfigError) as caught:
        load_plugin(str(path))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
