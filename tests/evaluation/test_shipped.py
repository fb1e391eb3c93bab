"""The judges that ship: all of them, made by the code as it is, and named where they do not do."""

from __future__ import annotations

import ast
import json
import os
import shutil
from pathlib import Path

import pytest

from codi.build import load_config
from codi.config import ConfigError
from codi.data.source import data_root
from codi.evaluation import shipped
from codi.evaluation.judges import JUDGES, SEED
from codi.evaluation.parts import PARTS, Part
from codi.evaluation.real import PartSuite, found_shards, shards_of
from codi.evaluation.shipped import (
    FOLDER,
    TABLE,
    ShippedPanel,
    judge_name,
    media_of,
    read_judges,
    settings_digest,
    shipped_panel,
)
from codi.evaluation.teaching import MODEL
from tests.real_shards import write_real_shard
from tests.small import small_config

JUDGED = [part for part in PARTS.values() if part.facts]
MAKE = "make them anew: codi data judges --data DIR --out src/codi/weights/judges"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the judges that stands in their place."""
    folder = tmp_path / "judges"
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


@pytest.mark.parametrize("part", JUDGED, ids=lambda part: part.name)
def test_the_judges_of_every_part_ship_and_are_not_stale(part: Part) -> None:
    panel = shipped_panel(part, load_config(MODEL))
    table = panel.table["judges"]
    assert list(panel.facts) == [fact.name for fact in part.facts]
    assert table.keys() == {judge_name(*of) for of in panel.kinds}
    media = media_of(part, load_config(MODEL))
    for name, kind in panel.kinds:
        fact, judge = panel.facts[name], table[judge_name(name, kind)]
        if fact.values:
            assert list(panel.words[name].items()) == list(fact.values.items())
        settings = settings_digest(part, fact, kind, media)
        assert judge["settings"] == settings, f"{part.name}-{name}-{kind} is stale; {MAKE}"
        assert (judge["steps"], judge["seed"]) == (JUDGES[kind].steps, SEED)
        network = panel.judge(name, kind)  # refuses weights of another hash
        assert sum(p.numel() for p in network.state_dict().values()) == judge["numbers"]
        assert not network.training
        for found in judge["accuracy"].values():
            assert found["fp16"] == pytest.approx(found["fp32"], abs=0.01)


def test_the_judges_are_small_and_their_card_says_how_well_they_judge() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 2**20
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for part, table in read_judges(FOLDER).items():
        assert f"| {part} | {int(table['items'].split()[0]):,} |" in card
        for name, judge in table["judges"].items():
            for modality, found in judge["accuracy"].items():
                row = f"| {part}-{name} | {modality} | {100 * found['fp16']:.1f} % "
                assert f"{row}| {table['tried']} |" in card, f"{row}: mend {FOLDER / 'README.md'}"


def test_what_is_learned_from_records_is_kept(tmp_path: Path) -> None:
    part = PARTS["esc"]
    write_real_shard(tmp_path, "esc", "test", 2)
    suite = PartSuite(part, small_config(), tmp_path, found_shards(part, tmp_path), tmp_path)
    words = suite.words["class"]
    assert len(words) == 49  # of the classes of ESC-50, in clips of open licences
    assert list(words) == sorted(words)  # as they were numbered when they were taught
    assert suite.truth("test", 0).facts["class"] == words["dog"]
    [reading] = suite.read("audio", [suite.medium("test", 0, "audio")])
    assert reading.facts["class"] in words.values()
    [said] = suite.read("text", [f"the sound of {words['dog']}"])
    assert said.facts == {"class": words["dog"]}
    assert "shipped" in suite.fingerprint
    assert not list(tmp_path.glob("esc-class*"))  # nothing was trained


def test_a_model_of_other_rates_is_told_so(tmp_path: Path) -> None:
    larger = small_config("modalities.image.media.size_px=128", "modalities.video.media.fps=4.0")
    assert shipped_panel(PARTS["handsign"], larger).facts
    assert shipped_panel(PARTS["digits"], larger).facts  # a digit is one in any frame
    with pytest.raises(ConfigError, match=r"sprites that ship .* video with fps 8.0, .* has 4.0"):
        shipped_panel(PARTS["sprites"], larger)
    write_real_shard(tmp_path, "sprites", "test", 1)
    shards = {"test": shards_of(PARTS["sprites"], "sprites-test.tar")}
    with pytest.raises(ConfigError, match=r"no sprites-train\*.tar .* fps 8.0.*--data TEST TRAIN"):
        _ = PartSuite(PARTS["sprites"], larger, tmp_path, shards, tmp_path).facts


def test_exchanged_and_damaged_files_are_named(copied: Path) -> None:
    config, part = small_config(), PARTS["handsign"]
    table = json.loads((copied / TABLE).read_text(encoding="utf-8"))
    table["parts"]["handsign"]["judges"]["digit-scene"]["sha256"] = "0" * 64
    panel = ShippedPanel(part, table["parts"]["handsign"], copied)
    with pytest.raises(ConfigError, match=r"handsign: the weights of digit-scene have the sha256"):
        panel.judge("digit", "scene")
    assert panel.fingerprint != shipped_panel(part, config).fingerprint
    (copied / "handsign" / "classifier.safetensors").write_bytes(b"none")
    with pytest.raises(ConfigError, match=r"classifier.safetensors: damaged or unreadable"):
        shipped_panel(part, config).judge("digit", "scene")
    for damaged in ("{", "[]", '{"parts": []}'):
        (copied / TABLE).write_text(damaged)
        with pytest.raises(ConfigError, match=r"judges.json: damaged or unreadable .* anew"):
            shipped_panel(part, config)
    (copied / TABLE).unlink()
    with pytest.raises(ConfigError, match=r"no judges of handsign ship"):
        shipped_panel(part, config)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ('"""Mean."""\ndef f(x: float):\n    """Halve."""\n    return x / 2  # half', True),
        ("def f(x):\n    return x / 3", False),
        ("def f(x):\n    return 2 / x", False),
        ("def f(x, y=1):\n    return x / 2", False),
    ],
)
def test_what_code_does_makes_judges_stale_and_what_it_says_does_not(
    other: str, same: bool
) -> None:
    own, changed = (
        list(shipped._meant(ast.parse(code))) for code in ("def f(x):\n return x / 2", other)
    )
    assert (own == changed) == same


def test_other_settings_make_a_judge_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    part = PARTS["digits"]
    [fact], media = part.facts, media_of(part, small_config())
    before = settings_digest(part, fact, "glyph", media)
    assert before != settings_digest(part, fact, "voice", media)
    assert before != settings_digest(part, fact, "glyph", {"image": {"size_px": 32}})
    monkeypatch.setattr(shipped, "SEED", 1)
    assert before != settings_digest(part, fact, "glyph", media)


@pytest.mark.slow
@pytest.mark.skipif("CODI_DATA" not in os.environ, reason="CODI_DATA does not say where data are")
@pytest.mark.parametrize("name", ["digits", "esc", "sprites"])
def test_the_table_says_how_well_they_judge(name: str, tmp_path: Path) -> None:
    part, root = PARTS[name], data_root()
    shards = {"val": shards_of(part, f"{name}-val*.tar")}
    suite = PartSuite(part, load_config(MODEL), root, shards, tmp_path)
    assert isinstance(suite.panel, ShippedPanel)
    rows = range(suite.count("val"))
    for modality in suite.panel.table["media"]:
        seen = suite.read(modality, [suite.medium("val", row, modality) for row in rows])
        for fact, kind in suite.panel.kinds:
            accuracy = suite.panel.table["judges"][judge_name(fact, kind)]["accuracy"]
            if suite.facts[fact].judges.get(modality) == kind:
                right = [seen[r].facts[fact] == suite.truth("val", r).facts[fact] for r in rows]
                found = sum(right) / len(right)
                assert found == pytest.approx(accuracy[modality]["fp16"], abs=0.01)
