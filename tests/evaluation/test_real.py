"""The suite of real data on tiny shards of its layouts."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codi.config import ConfigError
from codi.data.source import ShardsConfig, ShardSource
from codi.evaluation import shipped
from codi.evaluation.cells import Cell
from codi.evaluation.extractors.own import OwnExtractor
from codi.evaluation.judges import JUDGES
from codi.evaluation.parts import PARTS, Fact, said
from codi.evaluation.real import TRAINED, PartSuite, found_shards, shards_of
from codi.evaluation.runner import evaluate
from codi.evaluation.suites import Input
from codi.pipeline import load
from codi.weights import save_model
from tests.real_shards import write_real_shard
from tests.small import small_config, small_model, speaking


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(speaking(small_model()), folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODI_DATA", raising=False)


def measured(
    folder: Path, data: Path | list[Path], out: Path, *tasks: str, **settings: Any
) -> list[Cell]:
    given = [str(one) for one in data] if isinstance(data, list) else str(data)
    return evaluate(
        folder, "real", samples=4, out=out, tasks=tasks, steps=1, data=given, **settings
    )


def settings_of(out: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((out / "real.json").read_text())["settings"]
    return settings


def change(shard: Path, name: str, data: bytes | None) -> None:
    """Put other bytes in a member's place, or nothing."""
    with tarfile.open(shard) as tar:
        members = [(i, b"" if (f := tar.extractfile(i)) is None else f.read()) for i in tar]
    with tarfile.open(shard, "w") as tar:
        for info, content in members:
            found = data if info.name == name else content
            if found is not None:
                info.size = len(found)
                tar.addfile(info, BytesIO(found))


def test_test_shards_alone_are_judged_by_the_judges_that_ship(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_real_shard(tmp_path, "esc", "test", 6)
    write_real_shard(tmp_path, "noto", "test", 2)
    cells = measured(folder, tmp_path, tmp_path / "out", "esc-true-audio", "esc-true-text")
    assert {cell.task for cell in cells if cell.fact == "class"} == {
        "esc-true-audio",
        "esc-true-text",
    }
    assert {cell.chance for cell in cells if cell.fact == "class"} == {1 / 49}
    settings = settings_of(tmp_path / "out")
    assert "esc: test, 6 items, facts (class) and retrieval, judges that ship." in settings["note"]
    assert "noto: test, 2 items, retrieval alone." in settings["note"]
    assert not [what for what in settings["left_out"] if what.startswith("facts of")]
    judge = settings["extractors"]["esc-class-sound"]
    assert judge["source"] == "the package, where 470 items of esc-train.tar taught it"
    write_real_shard(tmp_path, "esc", "train", 2)
    briefly = {name: dataclasses.replace(kind, steps=5) for name, kind in JUDGES.items()}
    monkeypatch.setattr("codi.evaluation.panels.JUDGES", briefly)
    measured(folder, tmp_path, tmp_path / "taught", "esc-true-audio")
    taught = settings_of(tmp_path / "taught")
    assert "facts (class) and retrieval. " in taught["note"]
    judge = taught["extractors"]["esc-class-sound"]
    assert judge["source"] == "training here on 2 items of esc-train.tar"


def test_a_part_without_training_shards_and_judges_is_judged_by_retrieval(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    write_real_shard(tmp_path, "esc", "test", 6)
    cells = measured(folder, tmp_path, tmp_path / "out", "esc-true-audio", "esc-text-to-audio")
    assert {cell.split for cell in cells} == {"test"}
    assert {cell.fact for cell in cells if cell.task == "esc-true-audio"} == {
        f"{pair} recall_at_{k}" for pair in ("text+audio", "audio+text") for k in (1, 5, 10)
    }
    assert all(cell.n == 4 and cell.chance is not None and cell.ci95 for cell in cells)
    settings = settings_of(tmp_path / "out")
    assert "esc: test, 6 items, retrieval alone." in settings["note"]
    assert "no digits-test*.tar" in settings["left_out"]["digits"]
    said = settings["left_out"]["facts of esc"]
    assert f"no esc-train*.tar below {tmp_path} for judges" in said
    assert "no judges of esc ship" in said
    assert "--data TEST TRAINING, or set CODI_DATA" in said


def test_test_shards_may_lie_in_a_folder_of_their_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, training = tmp_path / "test", tmp_path / "training"
    for place, splits in ((test, ["test"]), (training, ["train", "val"])):
        place.mkdir()
        for split in splits:
            write_real_shard(place, "esc", split, 6)
    write_real_shard(training, "noto", "val", 2)
    both = measured(folder, [test, training], tmp_path / "both", "esc-true-text")
    assert {(cell.fact, cell.split) for cell in both} >= {("class", "test")}
    assert "noto: val, 2 items" in settings_of(tmp_path / "both")["note"]
    monkeypatch.setenv("CODI_DATA", str(training))
    assert measured(folder, test, tmp_path / "set", "esc-true-text") == both
    settings = settings_of(tmp_path / "set")
    assert settings["note"] == "esc: test, 6 items, facts (class) and retrieval."
    assert settings["media"]["audio"]["sample_rate_hz"] == 16_000
    assert "noto" in settings["left_out"]  # what is measured is what --data has
    monkeypatch.setenv("CODI_DATA", "/nowhere")  # nobody asked for it
    assert measured(folder, [test, training], tmp_path / "both", "esc-true-text") == both


def test_a_damaged_item_is_passed_over(folder: Path, tmp_path: Path) -> None:
    shard = write_real_shard(tmp_path, "notostill", "val", 4)
    with tarfile.open(shard) as tar:
        whole = tar.extractfile("0001.image.webp")
        assert whole is not None
        change(shard, "0001.image.webp", whole.read()[:200])
    tasks = ("notostill-true-image", "notostill-text-to-image")
    cells = measured(folder, tmp_path, tmp_path / "out", *tasks)
    assert {cell.task for cell in cells} == set(tasks)
    assert {cell.n for cell in cells} == {3}
    said = settings_of(tmp_path / "out")["left_out"]["items of notostill that cannot be used"]
    assert said.startswith(f"1, such as {shard}: item '0001': ")
    change(shard, "0003.json", b'{"captions": []}')
    change(shard, "0002.image.webp", None)
    cells = measured(folder, tmp_path, tmp_path / "out", *tasks)
    assert {cell.n for cell in cells} == {1}
    left_out = settings_of(tmp_path / "out")["left_out"]
    assert left_out["items of notostill that cannot be used"].startswith("3, such as ")


def test_an_item_that_is_damaged_later_does_not_count_any_more(
    folder: Path, tmp_path: Path
) -> None:
    shard = write_real_shard(tmp_path, "notostill", "val", 4)
    task = "notostill-text-to-image"
    measured(folder, tmp_path, tmp_path / "out", task)
    with tarfile.open(shard) as tar:
        size = tar.getmember("0001.image.webp").size
    change(shard, "0001.image.webp", bytes(size))  # as large a file: the records stay valid
    assert {cell.n for cell in measured(folder, tmp_path, tmp_path / "out", task)} == {3}


def test_judges_learn_from_what_can_be_used(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 2)):
        shard = write_real_shard(tmp_path, "esc", split, count)
        change(shard, "0001.audio.flac", b"none")
    train = tmp_path / "esc-train.tar"
    change(train, "0002.json", b"{")
    change(train, "0003.audio.flac", None)
    part = PARTS["esc"]
    suite = PartSuite(part, small_config(), tmp_path, found_shards(part, tmp_path), tmp_path)
    suite.steps = 1
    usable = [i for i in range(2) if not suite.broken("val", i)]
    assert len(usable) == 1
    assert suite.read("audio", [suite.medium("val", usable[0], "audio")])[0].facts
    assert suite.left_out["training items of esc that cannot be used"].startswith("3, such as ")
    for i in range(6):
        change(train, f"{i:04d}.audio.flac", b"none")
    again = PartSuite(part, small_config(), tmp_path, found_shards(part, tmp_path), tmp_path / "2")
    with pytest.raises(ConfigError, match=r"esc-train.tar: item '0002': its record is damaged"):
        again.read("audio", [suite.medium("val", usable[0], "audio")])


def test_judges_are_named_with_their_hash(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        write_real_shard(tmp_path, "esc", split, count)
    part = PARTS["esc"]

    def opened() -> PartSuite:
        return PartSuite(
            part, small_config(), tmp_path, found_shards(part, tmp_path), tmp_path / "c", steps=1
        )

    suite = opened()
    assert suite.described == {"extractors": {}}  # none was needed yet
    suite.read("audio", [suite.medium("val", 0, "audio")])
    (judge,) = suite.described["extractors"].values()
    assert suite.described["extractors"].keys() == {"esc-class-sound"}
    assert judge["name"] == "SoundClassifier"
    assert judge["source"] == "training here on 4 items of esc-train.tar"
    assert len(judge["sha256"]) == 64
    assert judge["trained_on"].startswith("esc-train-")
    assert opened().described == suite.described  # kept on disk


def test_a_report_and_a_page_of_pieces_name_what_looked_at_media(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("esc", "noto"):
        write_real_shard(tmp_path, name, "val", 4)
    page = tmp_path / "results.md"
    for task in ("esc-true-audio", "noto-true-image"):
        measured(folder, tmp_path, tmp_path / "out", task, results=page)
    encoders = settings_of(tmp_path / "out")["extractors"]["codi"]
    assert len(encoders["sha256"]) == 64
    assert encoders["sha256"][:16] in (tmp_path / "out/real.md").read_text()
    text = page.read_text()
    assert text.count(encoders["sha256"][:16]) == 1  # above the table, once for both pieces
    assert text.index("codi: codi from ") < text.index("| esc-true-audio |")
    assert "| noto-true-image |" in text


def test_captions_tell_facts_and_rights_are_counted(folder: Path, tmp_path: Path) -> None:
    write_real_shard(tmp_path, "sprites", "train", 12)
    write_real_shard(tmp_path, "sprites", "val", 6)
    cells = measured(folder, tmp_path, tmp_path / "out", "sprites-true-text", "sprites-codec-text")
    true = {cell.fact: cell for cell in cells if cell.task == "sprites-true-text"}
    assert {"hair", "top", "direction", "action"} <= true.keys()
    assert "shoes" not in true  # the short caption does not tell them
    assert true["hair"].value == 1.0
    assert true["hair"].chance == 0.1


def test_a_caption_of_several_items_finds_any_of_them(folder: Path, tmp_path: Path) -> None:
    write_real_shard(tmp_path, "esc", "val", 6)
    cells = measured(folder, tmp_path, tmp_path / "out", "esc-true-audio")
    chance = {cell.fact: cell.chance for cell in cells}
    # two classes among four items: more than the quarter that single items would have
    assert 0.25 <= (chance["text+audio recall_at_1"] or 0.0) < 1.0
    assert chance["text+audio recall_at_5"] == 1.0


def test_judges_learn_the_values_of_the_records(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 3)):
        write_real_shard(tmp_path, "esc", split, count)
    part = PARTS["esc"]
    shards = found_shards(part, tmp_path)
    suite = PartSuite(part, small_config(), tmp_path, shards, tmp_path / "cache", steps=2)
    assert suite.words == {"class": {"dog": "a dog barking", "rain": "rain falling"}}
    truths = [suite.truth("val", i).facts["class"] for i in range(3)]
    assert sorted(truths) == ["a dog barking", "a dog barking", "rain falling"]
    reading = suite.read("audio", [suite.medium("val", 0, "audio")])[0]
    assert reading.facts["class"] in suite.words["class"].values()
    assert suite.read("text", ["the sound of rain falling", "nothing"])[1].facts == {}
    assert suite.caption("val", 0, Input("text", shown_by="audio")) == "the sound of a dog barking"


def test_pictures_and_clips_have_their_judges(tmp_path: Path) -> None:
    for split, count in (("train", 10), ("val", 2)):
        write_real_shard(tmp_path, "sprites", split, count)
    part = PARTS["sprites"]
    shards = found_shards(part, tmp_path)
    suite = PartSuite(part, small_config(), tmp_path, shards, tmp_path / "cache", steps=1)
    clip = suite.read("video", [suite.medium("val", 0, "video")])[0]
    assert set(clip.facts) == {fact.name for fact in part.facts}
    picture = suite.read("image", [suite.medium("val", 0, "image")])[0]
    assert set(picture.facts) == set(clip.facts) - {"action"}


def test_a_test_split_goes_first_and_train_alone_is_parted(tmp_path: Path) -> None:
    part = PARTS["handsign"]
    assert found_shards(part, tmp_path) == {}
    write_real_shard(tmp_path, "handsign", "train", 40)
    alone = found_shards(part, tmp_path)
    assert {name: config.split for name, config in alone.items()} == {
        "held-out": "held-out",
        TRAINED: "trained",
    }
    keys = [
        {item.key for item in built.items}
        for config in alone.values()
        if isinstance(built := config.build(small_config(), tmp_path), ShardSource)
    ]
    assert keys[0]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 40
    for split in ("val", "test"):
        write_real_shard(tmp_path, "handsign", split, 2)
    assert list(found_shards(part, tmp_path)) == ["test", "val", TRAINED]


def test_nothing_at_all_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"PART-SPLIT\*.tar, PART one of digits, esc") as caught:
        evaluate(folder, "real", out=tmp_path / "out", data=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_record_without_its_fact_is_named(tmp_path: Path) -> None:
    write_real_shard(tmp_path, "noto", "val", 2)
    part = PARTS["noto"]
    strange = type(part)("noto", part.modalities, (Fact("mood", "mood", {"image": "scene"}),))
    shards = {"val": shards_of(part, "noto-val*.tar"), TRAINED: shards_of(part, "noto-val*.tar")}
    suite = PartSuite(strange, small_config(), tmp_path, shards, tmp_path)
    with pytest.raises(ConfigError, match=r"noto-val.tar: item '0000': .* no 'mood', the mood of"):
        _ = suite.words


def test_media_of_every_part_are_fitted(tmp_path: Path) -> None:
    shapes = {"video": (16, 64, 64, 3), "image": (1, 64, 64, 3), "audio": (32_000,)}
    for name, part in PARTS.items():
        write_real_shard(tmp_path, name, "val", 1)
        source = ShardsConfig((f"{name}-val.tar",), loop=part.loop).build(small_config(), tmp_path)
        assert source is not None
        arrays, _ = source.read(0)
        assert {n: a.shape for n, a in arrays.items()} == {
            n: shapes[n] for n in part.modalities if n != "text"
        }
        if name == "sprites":  # eight frames at ten a second begin again after 0.8 s
            assert (arrays["video"][0] == arrays["image"][0]).all()
            assert not (arrays["video"][8] == arrays["video"][15]).all()


def test_words_are_whole() -> None:
    assert said("Someone says one.", "one")
    assert not said("someone", "one")


def test_a_model_may_say_nothing(folder: Path) -> None:
    rows = OwnExtractor(load(folder))("text", ["", "a dog"])["features"]
    assert rows.shape[0] == 2
    assert np.isfinite(rows).all()
