"""Reports say every number once, and sheets hold what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from codi import media
from codi.evaluation.cells import Cell
from codi.evaluation.page import html
from codi.evaluation.report import markdown, remove_samples, said, write_report, write_samples
from codi.evaluation.suites import Input, Task
from tests.small import small_config

CELLS = [
    Cell("text-to-image", "image", "shape", "trained", 0.954, 200, 0.2, (0.9, 0.98)),
    Cell("text-to-image", "image", "shape", "held-out", 0.85, 200, 0.2, (0.8, 0.9)),
    Cell("text-to-audio", "audio", "offset_ms", "trained", 31.4, 90, 61.0, (28.0, 40.0)),
    Cell("text-to-audio", "audio", "precision", "trained", None, 0, None, None),
]
SPLITS = ("trained", "held-out")


def test_the_table_has_a_row_for_each_fact_and_a_column_for_each_split() -> None:
    rows = markdown("bounce", {"model": "small", "left_out": {}}, CELLS, SPLITS).splitlines()
    assert "| text-to-image | shape | 95.4 % (90–98) | 85.0 % (80–90) | 20.0 % | 200 |" in rows
    assert "| text-to-audio | median offset | 31 ms (28–40) |  | 61 ms | 90 |" in rows
    assert "|  | precision | none |  |  | 0 |" in rows


def test_a_row_says_the_chance_of_every_column_and_every_network() -> None:
    impacts = [
        Cell("made", "video", "impacts", split, 0.4, 24, chance, (0.3, 0.5))
        for split, chance in (("trained", 0.338), ("held-out", 0.392))
    ]
    kid = [
        Cell("made", "image", "kid", "trained", value, 24, None, None, "number", network)
        for network, value in (("inception", 0.1), ("clip", 0.2))
    ]
    rows = markdown("bounce", {"model": "small"}, [*impacts, *kid], SPLITS).splitlines()
    assert rows[-3].endswith("| 33.8 % / 39.2 % | 24 |")
    assert rows[-2:] == [
        "|  | kid (inception) | 0.1 |  |  | 24 |",
        "|  | kid (clip) | 0.2 |  |  | 24 |",
    ]


def test_differences_of_shares_are_said_in_points_with_their_signs() -> None:
    change = Cell("x", "image", "y", "trained", -0.025, 9, None, (-0.057, 0.0), "points")
    assert "| -2.5 points (-5.7 to +0.0) |" in markdown("bounce", {}, [change], ["trained"])
    kid = Cell("x", "image", "kid", "trained", 0.1, 9, None, (-0.2, 0.4), "number")
    assert "| 0.1 (-0.2 to 0.4) |" in markdown("bounce", {}, [kid], ["trained"])


def test_all_settings_of_the_sampling_are_said() -> None:
    settings = {"sampler": "ddim", "spacing": "ldm", "guidance_interval": (100, 900), "reuse": 2}
    (line, *_) = said({**settings, "eta": None, "guidance": {}})
    assert line.startswith("sampler ddim, spacing ldm, guidance_interval (100, 900), reuse 2.")


def test_settings_are_said_as_they_are_typed() -> None:
    (line, *_) = said({"eta": 1.0, "guidance": {"text": 2.0, "image": 7.5}})
    assert line.startswith("eta 1, guidance text=2 image=7.5.")


def test_sizes_and_rates_of_media_are_said() -> None:
    media = {"text": {}, "image": {"size_px": 64}, "audio": {"sample_rate_hz": 16_000}}
    wanted = "Media: image size_px 64; audio sample_rate_hz 16000."
    assert said({"media": media})[-1] == wanted
    assert wanted in markdown("bounce", {"media": media}, CELLS, SPLITS).splitlines()
    assert not any("Media" in line for line in said({"media": {"text": {}}}))


def test_a_report_without_settings_begins_with_words() -> None:
    assert said({}) == ["In brackets: 95 % intervals."]


def test_json_holds_settings_and_cells(tmp_path: Path) -> None:
    write_report(tmp_path, "bounce", {"steps": 3}, CELLS, SPLITS)
    table = json.loads((tmp_path / "bounce.json").read_text())
    assert table["settings"] == {"steps": 3}
    wanted = {"task", "fact", "split", "value", "n", "chance", "ci95"}
    assert all(wanted <= cell.keys() for cell in table["cells"])
    assert (tmp_path / "bounce.md").read_text().startswith("# bounce")


def test_a_sheet_shows_prompts_beside_outputs(tmp_path: Path) -> None:
    frames = np.zeros((16, 64, 64, 3), dtype=np.uint8)
    sound = media.Audio(np.zeros(32_000, dtype=np.float32), 16_000)
    task = Task((Input("text"),), ("video", "audio", "image", "text"))
    outputs: dict[str, list[Any]] = {
        "video": [media.Video(frames, 8.0)] * 9,
        "audio": [sound] * 9,
        "image": [Image.fromarray(frames[0])] * 9,
        "text": [""] * 9,
    }
    write_samples(tmp_path, small_config(), task, "trained", [("text", ["a ball"] * 9)], outputs)
    with Image.open(tmp_path / f"{task.name}-trained.png") as sheet:
        assert sheet.width > 16 * 64
        assert sheet.height > 8 * (64 + 64 + 64)
    names = {path.suffix for path in tmp_path.iterdir()}
    assert names == {".png", ".mp4", ".wav"}
    wav = tmp_path / f"{task.name}-trained-0.wav"
    played, _ = media.load_audio(wav, sample_rate_hz=16_000, duration_s=2.0)
    assert len(played.samples) == 32_000


def test_prompts_are_played_before_what_came_out(tmp_path: Path) -> None:
    sound = media.Audio(np.zeros(32_000, dtype=np.float32), 16_000)
    clip = media.Video(np.zeros((16, 64, 64, 3), dtype=np.uint8), 8.0)
    task = Task((Input("image"), Input("audio"), Input("video")), ("audio", "video"))
    picture = Image.fromarray(clip.frames[0])
    prompts: list[tuple[str, list[Any]]] = [
        ("image", [picture] * 2),
        ("audio", [sound] * 2),
        ("video", [clip] * 2),
    ]
    outputs: dict[str, list[Any]] = {"audio": [sound] * 2, "video": [clip] * 2}
    folder = tmp_path / "samples" / "mine" / "part"  # as the suite of several parts has it
    write_samples(folder, small_config(), task, "val", prompts, outputs)
    own = [".prompt2.wav", ".prompt3.mp4", ".mp4", ".wav"]
    names = [f"{task.name}-val-{i}{end}" for i in range(2) for end in own]
    assert {path.name for path in folder.iterdir()} == {*names, f"{task.name}-val.png"}
    page = html("mine", [], [["task"]], tmp_path)
    places = [page.index(f'title="{name}"') for name in names]
    assert places == sorted(places)
    assert page.index(f"{task.name}-val.png") < places[0]
    assert page.count("<video controls") == 4
    assert " muted" not in page  # clips may have a sound
    assert page.count("<figcaption>1: prompt</figcaption>") == 2
    assert page.count("<figcaption>2: output</figcaption>") == 2
    remove_samples(folder, task, "val")
    assert not list(folder.iterdir())
