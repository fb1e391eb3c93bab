"""`codi data`: pictures, clips and shards of the bounce world, and the tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codi import media
from codi.build import load_config
from codi.cli import main
from codi.data.source import ShardsConfig
from codi.evaluation.judges import JUDGES
from codi.tokenizer import load_tokenizer
from codi.worlds import bounce
from tests.real_shards import write_real_shard


def bounce_command(*words: str | Path) -> None:
    assert main(["data", "bounce", "--quiet", *map(str, words)]) == 0


def test_the_sheet_marks_every_impact_in_red(tmp_path: Path) -> None:
    bounce_command("--sheet", tmp_path / "sheet.png", "--count", "2", "--seed", "3")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    height = len(sheet) // 2
    for row in range(2):
        impacts = bounce.sample_scene(3 + row).impact_times_s
        lowest = sheet[(row + 1) * height - 9]  # under the wave, where only marks reach
        marks = np.flatnonzero((lowest == (255, 0, 0)).all(-1)) / sheet.shape[1]
        assert marks * bounce.DURATION_S == pytest.approx(impacts, abs=0.002)


def test_clips_are_what_the_world_renders(tmp_path: Path) -> None:
    bounce_command("--out", tmp_path, "--count", "2", "--seed", "8", "--split", "held-out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{i:03d}-{name}" for i in range(2) for name in ("audio.wav", "text.txt", "video.mp4")
    ]
    scene = bounce.sample_scene(9, "held-out")
    sound, _ = media.load_audio(
        tmp_path / "001-audio.wav", sample_rate_hz=bounce.SAMPLE_RATE_HZ, duration_s=2.0
    )
    np.testing.assert_allclose(sound.samples, bounce.render_audio(scene), atol=1e-4)
    video, _ = media.load_video(tmp_path / "001-video.mp4", frames=16, fps=8, size_px=64)
    difference = video.frames.astype(float) - bounce.render_video(scene)
    assert np.abs(difference).mean() < 6
    assert media.has_audio(tmp_path / "001-video.mp4")
    text, _ = media.load_text(tmp_path / "001-text.txt")
    assert bounce.parse_caption(text) is not None


# The reader of shards leaves them open until they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_shards_are_read_back_as_the_same_clips(tmp_path: Path) -> None:
    bounce_command("--out", tmp_path, "--count", "3", "--seed", "5", "--shards")
    source = ShardsConfig(files=("*.tar",)).build(load_config("tiny"), tmp_path)
    assert source is not None
    assert len(source) == 3
    for index in range(3):
        arrays, record = source.read(index)
        scene = bounce.sample_scene(5 + index)
        np.testing.assert_array_equal(arrays["video"], bounce.render_video(scene))
        np.testing.assert_allclose(
            arrays["audio"] / 32767, bounce.render_audio(scene), atol=2 / 32767
        )
        assert record["captions"]
        for caption in record["captions"]:
            told = bounce.parse_caption(caption)
            assert told is not None
            assert told.items() <= scene.facts.items()


def test_the_same_seeds_give_the_same_shard(tmp_path: Path) -> None:
    for name in ("a", "b"):
        bounce_command("--out", tmp_path / name, "--count", "2", "--shards")
    first, second = sorted(tmp_path.glob("*/*.tar"))
    assert first.read_bytes() == second.read_bytes()


def test_the_tokenizer_reads_world_and_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bounce_command("--out", tmp_path, "--count", "2", "--shards")
    out = tmp_path / "tokenizer.json"
    words = ["--out", str(out), "--clips", "40", "--vocabulary", "300", "--data", str(tmp_path)]
    assert main(["data", "tokenizer", *words, "--shards", "bounce-*.tar"]) == 0
    shown = len(bounce.SHOWS)
    assert f"from {40 * shown + 2 * shown * 3} captions" in " ".join(
        capsys.readouterr().err.split()
    )
    tokenizer = load_tokenizer(str(out))
    assert len(tokenizer) == 300
    ids = tokenizer.encode(["a red ball", "a knock ü"], 32)
    assert tokenizer.decode(ids[:, 1:]) == ["a red ball", "a knock ü"]


def test_the_tokenizer_goes_on_from_another(tmp_path: Path) -> None:
    bounce_command("--out", tmp_path, "--count", "2", "--shards")
    first, longer = tmp_path / "first.json", tmp_path / "longer.json"
    words = ["--clips", "40", "--data", str(tmp_path), "--shards", "bounce-*.tar", "--quiet"]
    tokenizer = ["data", "tokenizer", *words]
    assert main([*tokenizer, "--out", str(first), "--vocabulary", "300"]) == 0
    extend = ["--out", str(longer), "--vocabulary", "320", "--extend", str(first)]
    assert main([*tokenizer, *extend]) == 0
    before, after = (load_tokenizer(str(f)).library.get_vocab() for f in (first, longer))
    assert before.items() <= after.items()
    assert len(after) == 320


def test_judges_are_trained_and_said_to_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(JUDGES, "scene", replace(JUDGES["scene"], steps=1))
    write_real_shard(tmp_path, "handsign", "train", 4)
    write_real_shard(tmp_path, "handsign", "val", 2)
    out = tmp_path / "a" / "judges"
    assert main(["data", "judges", "--data", str(tmp_path), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "handsign-digit-scene: image" in said
    assert f"{out}: 1 judges, 25,213 numbers in half precision" in said
    assert {path.name for path in out.rglob("*.*")} == {"judges.json", "classifier.safetensors"}
    assert main(["data", "judges", "--data", str(out), "--out", str(tmp_path / "b")]) == 2
    assert "none of digits-train*.tar" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_damaged_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.tar").write_bytes(b"not a tar file" * 100)
    words = ["--out", str(tmp_path / "t.json"), "--clips", "1", "--data", str(tmp_path), "--quiet"]
    assert main(["data", "tokenizer", *words, "--shards", "broken.tar"]) == 2
    assert "broken.tar: damaged or unreadable" in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()
