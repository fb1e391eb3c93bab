"""`codi generate` on real files with a small untrained model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from codi import media
from codi.build import Model
from codi.cli import main
from codi.pipeline import Pipeline

SUFFIXES = {"image": "png", "video": "mp4", "audio": "wav", "text": "txt"}


class Studio:
    """A folder to generate into with the small model."""

    def __init__(self, model: Path, out: Path) -> None:
        self.model, self.out = model, out

    def __call__(self, *words: str | Path, to: tuple[str, ...] = ("image",)) -> int:
        basis = ["generate", "--model", self.model, "--out", self.out, "--steps", "2", "--to", *to]
        return main([str(word) for word in (*basis, *words)])

    @property
    def manifest(self) -> dict[str, Any]:
        table: dict[str, Any] = json.loads((self.out / "manifest.json").read_text())
        return table

    @property
    def files(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.out.iterdir() if p.name != "manifest.json"}


@pytest.fixture
def studio(model_folder: Path, tmp_path: Path) -> Studio:
    return Studio(model_folder, tmp_path / "deep" / "out")


@pytest.mark.parametrize(
    ("given", "to"),
    [
        (["text"], ("image",)),
        (["image", "audio"], ("text",)),
        (["video"], ("audio", "video")),
        (["audio", "text", "image", "video"], ("image", "video", "audio", "text")),
    ],
)
def test_any_to_any_writes_one_file_for_each_output(
    given: list[str], to: tuple[str, ...], studio: Studio, files: dict[str, Path]
) -> None:
    sources: dict[str, str | Path] = {
        "text": "a red ball",
        "image": files["ball.png"],
        "audio": files["knock.wav"],
        "video": files["clip.mp4"],
    }
    words = [word for name in given for word in (f"--{name}", sources[name])]
    assert studio(*words, "--quiet", to=to) == 0
    assert set(studio.files) == {f"000-{name}.{SUFFIXES[name]}" for name in to}
    manifest = studio.manifest
    assert manifest["complete"]
    assert manifest["to"] == list(to)
    assert [c["modality"] for c in manifest["conditions"]] == given
    assert sum(c["weight"] for c in manifest["conditions"]) == pytest.approx(1.0, abs=1e-5)
    assert manifest["samples"][0]["files"] == {n: f"000-{n}.{SUFFIXES[n]}" for n in to}


def test_files_are_what_they_say(studio: Studio) -> None:
    assert studio("--unconditional", "--quiet", to=("video", "audio", "image")) == 0
    with Image.open(studio.out / "000-image.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (64, 64))
    video, _ = media.load_video(studio.out / "000-video.mp4", frames=16, fps=8, size_px=64)
    assert len(video.frames) == 16
    sound, notes = media.load_audio(
        studio.out / "000-audio.wav", sample_rate_hz=16_000, duration_s=2.0
    )
    assert not notes
    assert len(sound.samples) == 32_000
    assert media.has_audio(studio.out / "000-video.mp4")


def test_a_kept_video_gets_the_sound_that_is_made_for_it(
    studio: Studio, files: dict[str, Path]
) -> None:
    assert not media.has_audio(files["clip.mp4"])
    assert studio("--keep", f"video={files['clip.mp4']}", "--quiet", to=("audio",)) == 0
    assert set(studio.files) == {"000-audio.wav", "000-video.mp4"}
    assert media.has_audio(studio.out / "000-video.mp4")
    assert studio.manifest["conditions"][0]["modality"] == "video"


def test_the_same_command_makes_the_same_files(studio: Studio) -> None:
    words = ("--text", "a ball", "--num", "3", "--batch", "2", "--seed", "5", "--quiet")
    assert studio(*words, to=("image", "audio", "video")) == 0
    first, manifest = studio.files, studio.manifest
    assert len(first) == 9
    assert studio(*words, to=("image", "audio", "video")) == 0
    assert studio.files == first
    for table in (manifest, again := studio.manifest):
        del table["timing"]
    assert again == manifest
    assert manifest["seeds"] == [5, 6, 7]
    assert [sample["seed"] for sample in manifest["samples"]] == [5, 6, 7]


def test_a_smaller_run_replaces_a_larger_one_and_spares_other_files(studio: Studio) -> None:
    assert studio("--text", "a", "--num", "2", "--quiet", to=("image", "text")) == 0
    (studio.out / "notes.md").write_text("mine")
    assert studio("--text", "b", "--quiet") == 0
    assert set(studio.files) == {"000-image.png", "notes.md"}
    assert studio.manifest["left_over"] == []


def test_what_a_run_reads_it_does_not_remove(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studio("--text", "a", "--quiet", to=("image", "audio")) == 0
    made = studio.files
    assert studio("--image", studio.out / "000-image.png", to=("text",)) == 0
    assert set(studio.files) == {"000-image.png", "000-text.txt"}
    assert studio.files["000-image.png"] == made["000-image.png"]
    told = [line for line in capsys.readouterr().err.splitlines() if "removed" in line]
    assert told == ["removed what an earlier run made: 000-audio.wav"]
    assert studio.manifest["left_over"] == ["000-image.png"]
    assert studio("--text", "a", "--quiet") == 0  # it is known to be an earlier run's
    assert set(studio.files) == {"000-image.png"}
    assert studio.manifest["left_over"] == []


@pytest.mark.parametrize("option", ["--image", "--negative-image", "--keep"])
def test_what_a_run_reads_it_does_not_replace(
    option: str, studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studio("--text", "a", "--quiet", to=("image", "audio")) == 0
    made, own = studio.files, studio.out / "000-image.png"
    words = (option, f"image={own}" if option == "--keep" else own, "--text", "a ball")
    assert studio(*words, to=("text",) if option == "--keep" else ("image",)) == 2
    assert f"{own}: is read by this run, which would replace it" in capsys.readouterr().err
    assert studio.files == made


def test_a_file_of_ones_own_is_not_replaced(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    studio.out.mkdir(parents=True)
    own = studio.out / "001-image.png"
    own.write_bytes(b"mine")
    assert studio("--text", "a", "--num", "2", "--quiet") == 2
    assert f"{own}: is there, and no manifest says" in capsys.readouterr().err
    assert studio.files == {"001-image.png": b"mine"}


def test_json_alone_on_stdout(studio: Studio, capsys: pytest.CaptureFixture[str]) -> None:
    assert studio("--text", "a  ball", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == studio.manifest
    assert "note: text: white space collapsed" in printed.err.splitlines()


def test_words_that_name_a_file_are_words_and_it_is_said(
    studio: Studio, capsys: pytest.CaptureFixture[str], tmp_cwd: Path
) -> None:
    (tmp_cwd / "ball.txt").write_text("a red ball")
    assert studio("--text", "ball.txt") == 0
    wanted = 'note: ball.txt: taken as words; --text "$(cat ball.txt)" gives what the file says'
    assert wanted in capsys.readouterr().err.splitlines()


def test_words_that_are_not_read_are_told(
    studio: Studio, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sentence = "a large red metal ball bounces quickly " * 9
    (tmp_path / "kept.txt").write_text(sentence.replace("metal", "wooden"))
    keep = ("--keep", f"text={tmp_path / 'kept.txt'}")
    assert studio("--text", sentence, "--negative-text", "a ball", *keep) == 0
    notes = [n for n in studio.manifest["notes"] if "tokens" in n]
    assert len(notes) == 1  # the same words of what is kept, which is a prompt too
    assert notes[0].startswith('text: the first 30 of 63 tokens are read, to "... ')
    assert f"note: {notes[0]}" in capsys.readouterr().err.splitlines()


def test_notes_progress_and_files_are_told(
    studio: Studio, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--image", files["ball.png"], "--video", files["clip.mp4"], "--num", "2")
    assert studio(*words, "--batch", "1", to=("image", "text")) == 0
    printed = capsys.readouterr()
    notes = [line for line in printed.err.splitlines() if line.startswith("note: ")]
    assert [line.split()[1] for line in notes] == ["ball.png:", "clip.mp4:"]
    assert "4/4" in printed.err
    assert studio.manifest["notes"] == [line.removeprefix("note: ") for line in notes]
    last = printed.out.splitlines()[-1]
    for name in [*studio.files, "manifest.json", str(studio.out)]:
        assert name in last


def test_a_closed_stdout_is_no_error(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # what `>&-` makes of it
    assert studio("--text", "a ball") == 0
    assert set(studio.files) == {"000-image.png"}


def test_quiet_says_nothing(studio: Studio, capsys: pytest.CaptureFixture[str]) -> None:
    assert studio("--text", "a  ball", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_weights_and_negatives_reach_the_model(studio: Studio, files: dict[str, Path]) -> None:
    words = ["--text", "a ball", "--image", str(files["ball.png"]), "--quiet"]
    made = []
    for more in (["--weights", "1", "0"], ["--weights", "0", "2"], ["--negative-text", "dark"]):
        assert studio(*words, *more) == 0
        made.append(studio.files["000-image.png"])
    assert len(set(made)) == 3


def test_sampling_settings_reach_the_model(studio: Studio) -> None:
    words = ("--sampler", "euler", "--guidance", "image=1.5", "--text", "x", "--quiet")
    assert studio(*words, to=("image", "audio")) == 0
    settings = studio.manifest["settings"]
    assert (settings["sampler"], settings["steps"]) == ("euler", 2)
    assert settings["guidance"]["image"] == 1.5
    assert settings["versions"]["codi"] == studio.manifest["codi"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--image", "missing.png"], ["missing.png: no such file"]),
        (["--text", ""], ["text is empty"]),
        (["--text", "a", "--sampler", "dimm"], ["unknown sampler 'dimm'", "did you mean 'ddim'"]),
        (["--text", "a", "--steps", "5000"], ["steps = 5000"]),
        (["--text", "a", "--device", "tpu9"], ["device 'tpu9'"]),
        (["--text", "a", "--device", "meta"], ["device 'meta' is not available here; use cpu"]),
        (["--text", "a", "--device", "hpu"], ["device 'hpu' is not available here; use cpu"]),
        (["--text", "a", "--dtype", "int3"], ["dtype", "int3", "float32"]),
        (["--text", "a", "--model", "tinny"], ["unknown model 'tinny'"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(
    words: list[str], parts: list[str], studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studio(*words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("codi: error: ")
    assert printed.err.count("\n") == 1
    for part in parts:
        assert part in printed.err
    assert not studio.out.parent.exists()


def test_a_folder_that_cannot_be_written_is_named(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    studio.out.parent.mkdir()
    studio.out.write_text("a file")
    assert studio("--text", "a") == 2
    line = capsys.readouterr().err
    assert str(studio.out) in line
    assert "--out" in line


def _closed_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # nothing is closed to root but what the system itself refuses
        return Path("/proc/self/codi")
    return folder / "out"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux")
def test_a_folder_without_permission_is_named(
    studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _closed_folder(tmp_path)
    assert studio("--text", "a", "--out", str(folder)) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"codi: error: {folder}: cannot be written to: ")
    assert line.count("\n") == 1


def test_a_foreign_manifest_is_left_alone(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    studio.out.mkdir(parents=True)
    (studio.out / "manifest.json").write_text('{"name": "an app"}')
    assert studio("--text", "a") == 2
    assert "was not written by codi generate" in capsys.readouterr().err
    assert (studio.out / "manifest.json").read_text() == '{"name": "an app"}'
    assert studio.files == {}


def test_a_manifest_cannot_name_files_outside_its_folder(studio: Studio) -> None:
    studio.out.mkdir(parents=True)
    victim = studio.out.parent / "000-image.png"
    victim.write_bytes(b"mine")
    table = {"samples": [{"files": {"image": "../000-image.png"}}], "left_over": [str(victim)]}
    (studio.out / "manifest.json").write_text(json.dumps(table))
    assert studio("--text", "a", "--quiet") == 0
    assert victim.read_bytes() == b"mine"


def stop_at(number: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `error` happen while picture `number` is written."""
    save, count = media.save_image, iter(range(number))

    def failing(path: Path, item: Image.Image) -> None:
        if next(count, None) is None:
            raise error
        save(path, item)

    monkeypatch.setattr(media, "save_image", failing)


def test_interrupted_samples_stay_and_the_manifest_says_incomplete(
    studio: Studio, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--text", "a", "--num", "3", "--batch", "1")
    with monkeypatch.context() as context:
        stop_at(2, KeyboardInterrupt(), context)
        assert studio(*words, to=("image", "audio")) == 130
    assert "incomplete: 2 of 3 samples are finished" in capsys.readouterr().err
    names = {f"00{i}-{name}" for i in (0, 1) for name in ("image.png", "audio.wav")}
    assert set(studio.files) == names
    assert not studio.manifest["complete"]
    assert len(studio.manifest["samples"]) == 2
    assert studio(*words, "--quiet", to=("image", "audio")) == 0
    assert studio.manifest["complete"]
    assert len(studio.files) == 6


def test_interrupted_before_the_first_sample_leaves_an_earlier_run_as_it_was(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studio("--text", "a", "--quiet") == 0
    before, manifest = studio.files, studio.manifest
    with monkeypatch.context() as context:
        stop_at(0, KeyboardInterrupt(), context)
        assert studio("--text", "b") == 130
    line = f"incomplete: 0 of 1 samples are finished, {studio.out} is as it was"
    assert line in capsys.readouterr().err.splitlines()
    assert studio.files == before
    assert studio.manifest == manifest


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_run_that_stops_over_an_earlier_one_leaves_its_finished_samples_alone(
    error: BaseException,
    studio: Studio,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert studio("--text", "a", "--num", "3", "--quiet") == 0
    before = studio.files
    (studio.out / "notes.md").write_text("mine")
    with monkeypatch.context() as context:
        stop_at(1, error, context)
        code = studio("--text", "b", "--num", "2", "--batch", "1")
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert set(studio.files) == {"000-image.png", "notes.md"}
    assert studio.files["000-image.png"] != before["000-image.png"]
    table = studio.manifest
    assert not table["complete"]
    assert [sample["number"] for sample in table["samples"]] == [0]
    assert table["left_over"] == []
    told = capsys.readouterr().err
    assert "removed what an earlier run made: 001-image.png, 002-image.png" in told
    assert f"incomplete: 1 of 2 samples are finished, in {studio.out}" in told.splitlines()


def test_sigterm_leaves_the_finished_samples_and_takes_effect_behind_them(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studio("--text", "a", "--num", "3", "--quiet") == 0
    save, numbers, ended = media.save_image, iter(range(9)), []

    def terminated(path: Path, item: Image.Image) -> None:
        save(path, item)
        if next(numbers) == 1:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:  # `timeout` sends it twice: to the process and to its group
                signal.raise_signal(signal.SIGTERM)

    def end(number: int, _frame: object) -> None:
        ended.append((number, set(studio.files)))

    monkeypatch.setattr(media, "save_image", terminated)
    before = signal.signal(signal.SIGTERM, end)  # by default it ends the process
    try:
        assert studio("--text", "b", "--num", "3", "--batch", "1") == 130
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == [(signal.SIGTERM, {"000-image.png"})]
    assert "incomplete: 1 of 3 samples are finished" in capsys.readouterr().err
    table = studio.manifest
    assert not table["complete"]
    assert [condition["source"] for condition in table["conditions"]] == ["b"]


def test_an_earlier_run_is_whole_until_the_last_sample_is_finished(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert studio("--text", "a", "--num", "2", "--quiet") == 0
    before, save, seen = studio.files, media.save_image, []

    def looking(path: Path, item: Image.Image) -> None:
        save(path, item)
        seen.append({p.name: p.read_bytes() for p in studio.out.glob("*.png")})

    monkeypatch.setattr(media, "save_image", looking)
    assert studio("--text", "b", "--num", "3", "--batch", "1", "--quiet") == 0
    assert seen == [before] * 3
    assert set(studio.files) == {f"00{number}-image.png" for number in range(3)}
    assert not set(studio.files.items()) & set(before.items())


def test_samples_of_a_first_run_are_there_batch_by_batch(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = media.save_image, []

    def looking(path: Path, item: Image.Image) -> None:
        save(path, item)
        seen.append(len(list(studio.out.glob("*.png"))))

    monkeypatch.setattr(media, "save_image", looking)
    assert studio("--text", "b", "--num", "3", "--batch", "1", "--quiet") == 0
    assert seen == [0, 1, 2]


def test_prompts_and_kept_streams_are_encoded_once_for_all_batches(
    studio: Studio, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, encode, asked = Model.encoder, Pipeline.encode, []

    def prompted(model: Model, name: str) -> Any:
        asked.append(f"prompt {name}")
        return encoder(model, name)

    def encoded(pipeline: Pipeline, name: str, arrays: Any) -> Any:
        asked.append(f"stream {name}")
        return encode(pipeline, name, arrays)

    monkeypatch.setattr(Model, "encoder", prompted)
    monkeypatch.setattr(Pipeline, "encode", encoded)
    words = ("--text", "a ball", "--negative-text", "dark", "--keep", f"image={files['ball.png']}")
    assert studio(*words, "--num", "3", "--batch", "1", "--quiet", to=("text",)) == 0
    assert sorted(asked) == ["prompt image", "prompt text", "prompt text", "stream image"]
    assert len(studio.manifest["samples"]) == 3


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")],
)
def test_out_of_memory_is_one_line(
    error: Exception,
    studio: Studio,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_at(0, error, monkeypatch)
    assert studio("--text", "a") == 2
    assert capsys.readouterr().err.startswith("codi: error: out of memory; ")


TIGHT = """
import re, resource, sys
from pathlib import Path
import torch
from codi.cli import main

small = ["generate", "--model", sys.argv[1], "--unconditional", "--to", "image", "--quiet"]
assert main([*small, "--out", sys.argv[2], "--steps", "1"]) == 0
used_kib = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
limit = (used_kib << 10) + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main([*small, "--out", sys.argv[3], "--num", "2048", "--batch", "2048"]))
"""


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux")
def test_too_little_memory_is_one_line(model_folder: Path, tmp_path: Path) -> None:
    words = [str(model_folder), str(tmp_path / "enough"), str(tmp_path / "tight")]
    done = subprocess.run(
        [sys.executable, "-c", TIGHT, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("codi: error: out of memory; work on fewer samples at once")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "tight").exists()


def test_a_bug_shows_its_traceback(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(0, RuntimeError("a bug"), monkeypatch)
    with pytest.raises(RuntimeError, match="a bug"):
        studio("--text", "a", "--quiet")


def test_numbers_that_are_not_finite_are_refused(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studio("--text", "a", "--guidance", "1e38") == 2
    assert "not finite" in capsys.readouterr().err
    assert not studio.out.exists()


def test_a_sample_does_not_depend_on_its_batch(studio: Studio) -> None:
    assert studio("--text", "a", "--num", "2", "--seed", "3", "--quiet") == 0
    together = np.asarray(Image.open(studio.out / "001-image.png"), dtype=int)
    assert studio("--text", "a", "--seed", "4", "--quiet") == 0
    alone = np.asarray(Image.open(studio.out / "000-image.png"), dtype=int)
    assert abs(together - alone).max() <= 2  # sums in another order, rounded to 8 bits
