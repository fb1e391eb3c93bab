"""Judges are taught, written in half precision and read back as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codi.build import load_config
from codi.config import ConfigError
from codi.evaluation import shipped, teaching
from codi.evaluation.panels import TaughtPanel
from codi.evaluation.parts import PARTS
from codi.evaluation.real import PartSuite, found_shards
from codi.evaluation.shipped import read_judges, shipped_panel
from codi.evaluation.teaching import MODEL, teach_judges
from tests.real_shards import write_real_shard


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODI_DATA", raising=False)


def test_what_was_taught_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, folder, config = PARTS["esc"], tmp_path / "judges", load_config(MODEL)
    for split, count in (("train", 6), ("val", 4), ("test", 2)):
        write_real_shard(tmp_path, "esc", split, count)
    made = teach_judges(tmp_path, folder, steps=2)
    assert made == read_judges(folder)
    assert made["esc"]["items"] == "6 items of esc-train.tar"
    assert made["esc"]["tried_on"] == "4 items of esc-val.tar"  # never the test shards
    assert made["esc"]["words"] == {"class": {"dog": "a dog barking", "rain": "rain falling"}}
    monkeypatch.setattr(shipped, "FOLDER", folder)
    panel = shipped_panel(part, config)
    shards = found_shards(part, tmp_path)
    suite = PartSuite(part, config, tmp_path, shards, tmp_path / "cache", steps=2)
    assert isinstance(suite.panel, TaughtPanel)
    own, taught = panel.judge("class", "sound"), suite.panel.judge("class", "sound")
    for (name, a), b in zip(own.named_parameters(), taught.parameters(), strict=True):
        assert torch.equal(a, b.half().float()), name
    [(name, said)] = panel.described.items()
    assert name == "esc-class-sound"
    assert said["source"] == "the package, where 6 items of esc-train.tar taught it"
    assert said["trained_on"] == suite.panel.fingerprint
    assert said.keys() == suite.panel.described[name].keys()


def test_what_is_taught_before_a_stop_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("esc", "handsign"):
        write_real_shard(tmp_path, part, "train", 40)
        write_real_shard(tmp_path, part, "val", 4)
    taught = teaching._taught

    def stopped(suite: PartSuite, folder: Path) -> object:
        if suite.part.name != "esc":
            raise KeyboardInterrupt
        return taught(suite, folder)

    monkeypatch.setattr(teaching, "_taught", stopped)
    with pytest.raises(KeyboardInterrupt):
        teach_judges(tmp_path, tmp_path / "judges", steps=1)
    assert read_judges(tmp_path / "judges").keys() == {"esc"}


def test_a_part_without_val_shards_holds_some_out_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "judges"
    for part, split in (("handsign", "train"), ("handsign", "test"), ("noto", "train")):
        (tmp_path / part).mkdir(exist_ok=True)
        write_real_shard(tmp_path / part, part, split, 40)
    with pytest.raises(ConfigError, match=r"noto: none of digits-train\*.tar, .* --data or CODI"):
        teach_judges(tmp_path / "noto", folder, steps=1)
    assert not folder.exists()
    made = teach_judges(tmp_path / "handsign", folder, steps=1)["handsign"]
    assert made["tried_on_split"] == "held-out"
    assert 0 < made["tried"] < 40
    assert made["items"] == f"{40 - made['tried']} items of handsign-train.tar"
    write_real_shard(tmp_path / "noto", "esc", "train", 2)  # of which none is held out
    [esc] = teach_judges(tmp_path / "noto", folder, steps=1).values()
    assert read_judges(folder) == {"esc": esc, "handsign": made}
