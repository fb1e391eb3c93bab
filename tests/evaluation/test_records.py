"""What is remembered comes back, whatever happened to the last line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codi.evaluation.records import Ledger, Reading, Record


def record(index: int) -> Record:
    readings = {
        "audio": Reading({"size": "big"}, (0.5, 1.25), peaks_s=(0.4, 1.0, 1.3)),
        "text": Reading({}, None, "a « ball »\n"),
    }
    return Record(index, {"size": "big"}, (0.5,), readings)


def test_records_come_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "a.jsonl")
    assert ledger.missing(3) == [0, 1, 2]
    ledger.add([record(1), record(0)])
    again = Ledger(ledger.path)
    assert again.first(5) == ledger.first(5) == [record(0), record(1)]
    assert again.first(1) == [record(0)]
    assert again.missing(4) == [2, 3]


def test_a_line_that_was_cut_off_costs_its_record_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.add([record(0), record(1)])
    ledger.path.write_text(ledger.path.read_text()[:-20])
    again = Ledger(ledger.path)
    assert again.missing(2) == [1]
    again.add([record(1)])
    assert Ledger(ledger.path).first(2) == [record(0), record(1)]


def test_features_lie_beside_their_records(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "task-trained-abc.jsonl")
    rows = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    order = [2, 0, 3, 1]
    for i in order:  # whatever order batches end in
        ledger.add([Record(i, {}, None, {})], {"video.clip.features": rows[[i]]})
    again = Ledger(ledger.path)
    assert not again.missing(4)
    np.testing.assert_array_equal(again.rows("video.clip.features", 3), rows[:3])
    with pytest.raises(KeyError):
        again.rows("video.clip", 1)
    with pytest.raises(ValueError, match="2 rows of x for 1 records"):
        ledger.add([Record(9, {}, None, {})], {"x": np.zeros((2, 1))})
