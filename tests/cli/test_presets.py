"""`codi presets`: the list says what is so, without building anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from codi.build import load_config, parameter_counts
from codi.cli import main
from codi.folders import PRESETS
from codi.folders import SHIPPED as WEIGHTS
from tests.small import EXTERNAL, SHIPPED


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Return the cells of every row by their first."""
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [row.split("│")[1:-1] for row in lines if "│" in row]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in rows}


def test_presets_are_listed_with_what_they_are(listed: dict[str, list[str]]) -> None:
    for path in PRESETS.glob("*.toml"):
        kind, parameters, about = listed[path.stem]
        is_recipe = path.stem.startswith("recipe-")
        trained = "with trained" if (WEIGHTS / path.stem).is_dir() else "without"
        assert kind == "recipe" if is_recipe else f"model {trained} weights"
        assert bool(parameters) != is_recipe
        assert about.split()[0] == path.read_text().split()[1]  # the comment it begins with


@pytest.mark.parametrize("preset", SHIPPED)
def test_a_preset_says_how_many_parameters_it_has(
    preset: str, listed: dict[str, list[str]]
) -> None:
    config = load_config(preset)
    if EXTERNAL & {table["kind"] for table in config.encoders.values()}:
        pytest.importorskip("transformers", reason="needs codi[external]")
    count = sum(parameter_counts(config).values())
    assert listed[preset][1] == f"{count / 1e6:,.0f} million"


def test_the_list_needs_no_torch() -> None:
    script = (
        "import sys\n"
        "from codi.cli import main\n"
        "assert main(['presets']) == 0\n"
        "heavy = {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
