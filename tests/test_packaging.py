"""What the package needs is in the wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_of_the_package_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [(package, globs)] = project["tool"]["setuptools"]["package-data"].items()
    folder = ROOT / "src" / package
    packaged = {path for glob in globs for path in folder.glob(glob)}
    there = {path for path in folder.rglob("*") if path.is_file()}
    left_out = {path for path in there - packaged if path.suffix not in (".py", ".pyc")}
    assert sorted(str(path.relative_to(folder)) for path in left_out) == []
