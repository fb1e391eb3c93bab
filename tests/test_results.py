"""The table in the README and the model card is that of the page of results, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codi.evaluation.suites import BOUNCE
from codi.folders import SHIPPED

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", SHIPPED / "tiny" / "README.md"]
ROWS = {
    "image codec alone": "codec-image",
    "audio codec and vocoder alone": "codec-audio",
    "text codec alone": "codec-text",
    "text to image": "text-to-image",
    "text to audio": "text-to-audio",
    "image to text": "image-to-text",
    "audio and image to text": "audio+image-to-text",
    "audio to text": "audio-to-text",
    "video to text": "video-to-text",
    "text and audio to image, both heard": "text+audio-to-image",
    "audio to image, never paired in training": "audio-to-image",
    "image to audio, never paired in training": "image-to-audio",
    "text to video": "text-to-video",
    "text to video, with its sound": "text-to-video+audio",
    "the same, each made alone": "text-to-video+audio-apart",
    "a given video's sound (`--keep video=...`)": "keep-video-to-audio",
    "a given sound's video (`--keep audio=...`)": "keep-audio-to-video",
}
FACTS = ("shape", "colour", "material", "size", "tempo", "background", "impacts")


def cells() -> dict[tuple[str, str, str], float]:
    """Return the measured values by task, fact and split; of clips with sound, those of clips."""
    found = json.loads((ROOT / "docs" / "results" / "bounce.json").read_text())["cells"]
    values = {}
    for cell in found:
        fact = cell["fact"].removeprefix("video+audio ").removeprefix("video ")
        if not cell["fact"].startswith("video+audio same") and cell["value"] is not None:
            values[cell["task"], fact, cell["split"]] = cell["value"]
    return values


def shown(task: str, fact: str, values: dict[tuple[str, str, str], float]) -> str:
    """Return a cell: the value of trained combinations, in brackets of held-out ones."""
    trained, held_out = (values.get((task, fact, split)) for split in ("trained", "held-out"))
    if trained is None:
        return ""
    words = [f"{100 * v:.1f}".removesuffix(".0") for v in (trained, held_out) if v is not None]
    return words[0] + (f" ({words[1]})" if len(words) > 1 else "")


def chance_of_impacts() -> str:
    """Return the range of what impacts have by chance in the tasks that are shown."""
    found = json.loads((ROOT / "docs" / "results" / "bounce.json").read_text())["cells"]
    shown_here = {*ROWS.values()}
    ends = [
        100 * cell["chance"]
        for cell in found
        if cell["fact"].endswith("impacts") and cell["task"] in shown_here
    ]
    return f"{min(ends):.0f} to {max(ends):.0f}"


@pytest.mark.parametrize("page", PAGES, ids=["README", "model card"])
def test_the_table_says_what_the_page_of_results_says(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| task | shape |"))
    values, rows = cells(), {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        label, *told = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        rows[label] = told
    guessed = rows.pop("chance")
    assert guessed[:-1] == ["20", "13", "25", "33", "33", "33"]  # one of the words for each fact
    assert guessed[-1] == chance_of_impacts()
    assert set(rows) == set(ROWS)
    for label, told in rows.items():
        assert told == [shown(ROWS[label], fact, values) for fact in FACTS], label


def test_every_task_of_the_suite_is_on_the_page() -> None:
    assert {task.name for task in BOUNCE} == {task for task, _, _ in cells()}


REAL = {
    "sounds of the environment": ("esc", "audio", ("class",)),
    "hands signing digits": ("handsign", "image", ("digit",)),
    "game characters": ("sprites", "image", ("hair", "top", "direction")),
}
"""First words of a row -> part, what is made and read, facts."""


def test_the_table_of_real_media_says_what_the_page_says() -> None:
    found = json.loads((ROOT / "docs" / "results" / "real.json").read_text())["cells"]
    values = {
        (c["task"], c["fact"]): (c["value"], c["chance"]) for c in found if c["source"] is None
    }

    def percents(task: str, facts: tuple[str, ...], which: int = 0) -> str:
        return ", ".join(f"{100 * values[task, fact][which]:.0f}" for fact in facts)

    rows = {}
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        label, *told = [cell.strip() for cell in line.strip("|").split("|")]
        for words in REAL:
            if label.startswith(words) and len(told) == 4:
                rows[words] = told
    assert set(rows) == set(REAL)
    for words, (part, medium, facts) in REAL.items():
        made, named, true, chance = rows[words]
        assert made == percents(f"{part}-text-to-{medium}", facts)
        assert named == percents(f"{part}-{medium}-to-text", facts)
        assert true.partition(" (")[0] == percents(f"{part}-true-{medium}", facts)
        assert chance == percents(f"{part}-true-{medium}", facts, which=1)
        if "codec" in true:
            coded = percents(f"{part}-codec-{medium}", facts)
            assert true.endswith(f"(through the codec {coded})")
