"""`codi presets`: the list says what is so, without building anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from codi.build import load_config, parameter_counts
from codi.cli import main
from codi.folders import PRESETS
from codi.folders import SHIPPED as WEIGHTS
from tests.released import LAYOUT
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


FOUND_AT = {
    "grand_total": "all",
    "autokl.total": "codecs.image",
    "audioldm_vae_total.total": "codecs.audio",
    "audioldm_vae_total.vocoder": "codecs.audio/vocoder",
    "optimus.total": "codecs.text",
    "optimus.encoder": "codecs.text/encoder",
    "optimus.decoder": "codecs.text/decoder",
    "clip.total": "CLIP",
    "clip.text": "encoders.text/tower",
    "clip.vision": "encoders.vision/tower",
    "clip.temporal": "encoders.vision/tower/temporal blocks",
    "clip.proj": "CLIP/projection",
    "clap.total": "encoders.audio",
    "clap.htsat": "encoders.audio/tower",
    "clap.audio_transform_unused": "encoders.audio/transform",
    "clap.audio_projection": "encoders.audio/projection",
    "files.CoDi_text_diffuser.pth.elements": "diffuser and environment of text",
    "files.CoDi_audio_diffuser_m.pth.elements": "diffuser and environment of audio",
    "files.CoDi_video_diffuser_8frames.pth.elements": "diffuser and environment of vision",
} | {
    f"unet_{theirs}.{key}": place.format(ours)
    for theirs, ours in {"image_video": "vision", "text": "text", "audio": "audio"}.items()
    for key, place in {
        "total": "diffuser and environment of {}",
        "env_encoder_connecters_out": "environments.{}",
        "cross_attn_connecters_in": "diffusers.{}/environment attention",
        "temporal_in_main": "diffusers.{}/temporal blocks",
        "temporal_in_env": "environments.{}/temporal blocks",
        "frameshift_in_main": "diffusers.{}/temporal blocks/frame shift",
        "main_without_temporal_and_connectors": "diffusers.{}/all else",
    }.items()
}
"""Number of the released CoDi's summary.json -> the row that prints it; none where it is 0."""

UNCOUNTED = re.compile(r"(n_keys|bytes_as_is|CoDi_encoders\.pth\..*|ddpm_schedule_buffers\..*)$")
"""What tells of files and of buffers, which are no parameters."""


def _numbers(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, int]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _described(printed: str) -> dict[str, int]:
    """Return the counts of a description by their rows, those of sub-rows by "row/sub-row"."""
    counts, above = {}, list[str]()
    for line in printed.splitlines():
        if not line.startswith("│"):
            continue
        name, _kind, count = line.split("│")[1:4]
        depth = (len(name) - len(name.lstrip()) - 1) // 2
        above = [*above[:depth], name.strip()]
        counts["/".join(above)] = int(count.replace(",", ""))
    return counts


@pytest.mark.skipif(not LAYOUT.is_dir(), reason="needs the summary of the released CoDi")
def test_the_description_of_the_release_has_every_number_of_its_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["presets", "--describe", "release"]) == 0
    rows = _described(capsys.readouterr().out)
    summary = json.loads((LAYOUT / "summary.json").read_text())
    numbers = {key: n for key, n in _numbers(summary) if not UNCOUNTED.search(key)}
    assert {key: rows.get(FOUND_AT[key], 0) for key in numbers} == numbers


def test_the_rows_of_a_description_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--describe", "tiny"]) == 0
    rows = _described(capsys.readouterr().out)
    for row, count in rows.items():
        below = [n for name, n in rows.items() if name.rpartition("/")[0] == row]
        assert sum(below) in (0, count)
    parts = [n for name, n in rows.items() if "." in name and "/" not in name]
    assert sum(parts) == rows["all"]


def test_the_list_needs_no_torch() -> None:
    script = (
        "import sys\n"
        "from codi.cli import main\n"
        "assert main(['presets']) == 0\n"
        "heavy = {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
