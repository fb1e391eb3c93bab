"""Foreign files -> a model's folder: every name accounted for, all or nothing, little memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from codi.build import Model, load_config
from codi.config import ConfigError
from codi.convert import converting, fresh
from codi.convert import layouts as registry
from codi.convert.converting import convert, prepare
from codi.convert.reading import LEGACY_BYTES
from codi.convert.sources import ForeignLayout
from codi.convert.writing import Slot, TensorFile
from codi.folders import PRESETS
from codi.pipeline import load
from codi.weights import ORIGIN, load_model, part_files, read_origin, save_model, save_part
from tests.convert import toy
from tests.small import PRESET

pytestmark = pytest.mark.usefixtures("layouts")

ROOT = Path(__file__).parents[2]


def _convert(source: Path, to: Path, *more: Path, **settings: object) -> converting.Conversion:
    conversion = prepare([str(p) for p in (source, *more)], to, **settings)  # type: ignore[arg-type]
    convert(conversion)
    return conversion


def _same(folder: Path, model: Model, part: str, but: str = "mean|shift|scale") -> None:
    """Compare a part in a folder with the one that the foreign file was made of."""
    role, name = part.split(".")
    wanted = model.role(role)[name].state_dict()
    found = load_model(folder, [part]).role(role)[name].state_dict()
    assert wanted.keys() == found.keys()
    for key, value in wanted.items():
        if not re.search(but, key):
            assert torch.equal(found[key], value), key


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt"])
def test_a_file_becomes_the_parts_that_it_holds(
    name: str, single: dict[str, Tensor], toy_model: Model, tmp_path: Path
) -> None:
    source = toy.write(tmp_path / name, single)
    conversion = _convert(source, tmp_path / "model")
    _same(tmp_path / "model", toy_model, "codecs.image")
    _same(tmp_path / "model", toy_model, "diffusers.vision", "temporal|environment|mean")
    assert conversion.plan.sources[0].used == set(single)
    assert conversion.absent["encoders.text"] == "text/model of nobody's folder"
    assert not list(tmp_path.glob(".*"))


def test_fresh_parts_change_nothing(single: dict[str, Tensor], tmp_path: Path) -> None:
    source = toy.write(tmp_path / "x.safetensors", single)
    _convert(source, tmp_path / "model")
    network = load_model(tmp_path / "model", ["diffusers.vision"]).role("diffusers")["vision"]
    z, context = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 1, 32)
    t = torch.tensor([5, 900])
    alone = network(z[:, :, :1], t, context)
    with_others = network(z[:, :, :1], t, context, torch.randn(2, 8, 16))
    assert torch.equal(alone, with_others)
    assert torch.allclose(network(z, t, context)[:, :, :1], alone, atol=1e-5)
    environments = load_model(tmp_path / "model", ["environments.vision"]).role("environments")
    assert torch.isfinite(environments["vision"](z, t)).all()


def test_a_folder_becomes_a_model_and_a_later_call_adds_to_it(
    single: dict[str, Tensor], toy_folder: Path, toy_model: Model, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    _convert(toy_folder, model)
    before = {path: path.read_bytes() for path in model.rglob("*.safetensors")}
    _same(model, toy_model, "codecs.audio")
    _same(model, toy_model, "encoders.text")
    conversion = _convert(toy.write(tmp_path / "x.safetensors", single), model)
    assert all(path.read_bytes() == data for path, data in before.items())
    _same(model, toy_model, "codecs.image")
    assert "encoders.text" not in conversion.absent
    assert read_origin(model)["parts"].keys() == {
        "encoders.text",
        "codecs.audio",
        "codecs.image",
        "diffusers.vision",
        "environments.vision",
    }


def test_a_converted_model_generates_and_says_what_it_lacks(
    single: dict[str, Tensor], toy_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    _convert(toy.write(tmp_path / "x.safetensors", single), model, toy_folder, dtype="bf16")
    made = load(model, device="cpu").generate([("text", "a ball")], ["image"], steps=1)
    assert made["image"][0].size == (64, 64)
    with pytest.raises(ConfigError, match=r"lacks 'diffusers.audio'") as caught:
        load(model, device="cpu").generate([("text", "a ball")], ["audio"], steps=1)
    assert "codi convert" not in str(caught.value)  # no layout brings it
    (part,) = part_files(model, "encoders.text")
    part.unlink()
    _convert(tmp_path / "x.safetensors", model)
    with pytest.raises(ConfigError, match="comes with text/model of nobody's folder: codi convert"):
        load(model, device="cpu").generate([("text", "a ball")], ["image"], steps=1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_numbers_are_written_in_the_type_asked_for(
    dtype: str, single: dict[str, Tensor], tmp_path: Path
) -> None:
    source = toy.write(tmp_path / "x.safetensors", single)
    _convert(source, tmp_path / "model", dtype=dtype)
    for part in ("codecs.image", "diffusers.vision", "environments.vision"):
        (path,) = part_files(tmp_path / "model", part)
        assert {t.dtype for t in load_file(path).values()} == {converting.DTYPES[dtype]}


def test_half_precision_comes_in_as_it_is_and_overflow_is_said(
    single: dict[str, Tensor], tmp_path: Path
) -> None:
    half = {name: value.bfloat16() for name, value in single.items()}
    half["first.enc.0.bias"][0] = 1e6
    source = toy.write(tmp_path / "x.safetensors", half)
    _convert(source, tmp_path / "model")
    (path,) = part_files(tmp_path / "model", "codecs.image")
    kept = load_file(path)
    assert torch.equal(kept["encoder.0.bias"], half["first.enc.0.bias"])
    assert kept["scale"].dtype == torch.float32  # fresh ones are what the part begins with
    with pytest.raises(ConfigError, match="which fp16 cannot hold; use --dtype bf16"):
        _convert(source, tmp_path / "other", dtype="fp16")
    assert not (tmp_path / "other").exists()


def test_a_later_call_goes_on_in_the_same_type_and_refuses_another(
    single: dict[str, Tensor], toy_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    source = toy.write(tmp_path / "x.safetensors", single)
    _convert(source, model, dtype="bf16")
    with pytest.raises(ConfigError, match=r"holds parts in bfloat16, and fp32 is asked for"):
        prepare([str(toy_folder)], model, dtype="fp32")
    assert _convert(toy_folder, model).dtype == "bf16"
    assert prepare([str(toy_folder)], model, dtype="fp32", force=True).dtype == "fp32"


def test_another_model_is_refused_or_replaces_what_does_not_fit(
    single: dict[str, Tensor], toy_folder: Path, toy_model: Model, tmp_path: Path
) -> None:
    model, source = tmp_path / "model", toy.write(tmp_path / "x.safetensors", single)
    _convert(source, model)
    other = tmp_path / "other.toml"
    other.write_text(PRESET.read_text().replace("kl_weight = 1e-4\nedge", "kl_weight = 1e-3\nedge"))
    with pytest.raises(ConfigError, match="holds model 'small', which is not 'small' as given"):
        prepare([str(toy_folder)], model, model=str(other))
    conversion = _convert(toy_folder, model, model=str(other), force=True)
    assert conversion.leaves == ("codecs.image",)
    assert not part_files(model, "codecs.image")
    assert part_files(model, "diffusers.vision")
    assert load_config(model).codecs["image"]["kl_weight"] == 1e-3
    _same(model, toy_model, "encoders.text")


def test_numbered_pieces_of_an_earlier_part_go(single: dict[str, Tensor], tmp_path: Path) -> None:
    model, source = tmp_path / "model", toy.write(tmp_path / "x.safetensors", single)
    _convert(source, model)
    (path,) = part_files(model, "codecs.image")
    path.rename(path.with_name("codec-000.safetensors"))
    _convert(source, model)
    assert [p.name for p in (model / "image").iterdir()] == ["codec.safetensors"]


def test_a_tokenizer_is_kept_with_its_part_wherever_the_folder_goes(
    toy_folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "download"
    for path in toy_folder.rglob("*.safetensors"):
        copy = source / path.relative_to(toy_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (source / "tokenizer").mkdir()
    tokenizer = (PRESETS / "tokenizer-tiny.json").read_bytes()
    (source / "tokenizer" / "tokenizer.json").write_bytes(tokenizer)
    _convert(source, tmp_path / "first")
    _convert(source, tmp_path / "first")  # and again, into the folder that is there
    (tmp_path / "first").rename(tmp_path / "model")
    written = (tmp_path / "model" / "config.toml").read_text()
    assert 'tokenizer = "./text/encoder-tokenizer/tokenizer.json"' in written
    kept = Path(load_config(tmp_path / "model").encoders["text"]["tokenizer"])
    assert kept.read_bytes() == tokenizer
    assert tmp_path / "model" in kept.parents


# --- what was trained ---


def _written_by_training(model: Path, part: str) -> None:
    role, name = part.split(".")
    module = load_model(model, [part]).role(role)[name]
    for path in part_files(model, part):
        path.unlink()
    save_part(module, model, part)


@pytest.mark.parametrize("place", ["a folder of training", "a converted folder"])
def test_a_part_that_was_trained_is_not_replaced(
    place: str, single: dict[str, Tensor], toy_model: Model, toy_folder: Path, tmp_path: Path
) -> None:
    model, source = tmp_path / "model", toy.write(tmp_path / "x.safetensors", single)
    _convert(source, model)
    _written_by_training(model, "codecs.image")
    if place == "a folder of training":
        (model / ORIGIN).unlink()
        save_model(load_model(model, ["diffusers.vision"]), model)
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    message = rf"model: codecs\.image \(.*codec.*\) was trained, .* {source} would .* with --force"
    with pytest.raises(ConfigError, match=message):
        prepare([str(source)], model)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    _convert(toy_folder, model)  # other parts are added
    _convert(toy_folder, model)  # and converted again
    assert all(
        path.read_bytes() == data for path, data in before.items() if path.parent.name == "image"
    )
    _convert(source, model, force=True)
    _same(model, toy_model, "codecs.image")
    _convert(source, model)  # what is there now can be had again


# --- what does not fit ---


def _refused(source: Path, to: Path, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        _convert(source, to)
    assert "\n" not in str(caught.value)
    assert not to.exists()
    assert not list(to.parent.glob(".*"))


def test_missing_and_unused_names_are_named(single: dict[str, Tensor], tmp_path: Path) -> None:
    left, to = dict(single), tmp_path / "model"
    for name in list(left)[-8:]:
        del left[name]
    source = toy.write(tmp_path / "missing.safetensors", left)
    _refused(source, to, r"missing.safetensors lacks (model\.net\S+, ){4}\S+ and 3 more, which dif")
    more = {"first.enc.new": torch.zeros(1), "strange": torch.zeros(1)}
    source = toy.write(tmp_path / "unused.safetensors", single | more)
    _refused(source, to, r"unused.safetensors holds first.enc.new, strange, which no part uses")


def test_unused_names_with_a_reason_are_listed(single: dict[str, Tensor], tmp_path: Path) -> None:
    more = {"first.loss.x": torch.zeros(1), "model_ema.y": torch.zeros(1)}
    source = toy.write(tmp_path / "x.safetensors", single | more)
    [found] = prepare([str(source)], tmp_path / "model").plan.sources
    assert found.unused == {"first.loss.x": "only for training", "model_ema.y": "averages"}


def test_a_piece_of_a_part_alone_is_not_a_part(toy_folder: Path, tmp_path: Path) -> None:
    message = (
        r"model.safetensors lacks enc\.0\.weight, .* autoencoder/model of nobody's folder holds"
    )
    _refused(toy_folder / "vocoder/model.safetensors", tmp_path / "model", message)


def test_another_size_is_said_before_anything_is_written(
    single: dict[str, Tensor], tmp_path: Path
) -> None:
    wide = single | {"first.enc.0.weight": torch.zeros(32, 192, 3, 3)}
    source = toy.write(tmp_path / "x.safetensors", wide)
    _refused(source, tmp_path / "model", r"is \(32, 192, 3, 3\), and encoder.0.weight of codecs.im")
    flat = single | {"first.enc.mid.qkv.weight": torch.zeros(16)}
    source = toy.write(tmp_path / "y.safetensors", flat)
    _refused(source, tmp_path / "model", r"first.enc.mid.qkv.weight is \(16,\)")


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_weights_that_are_no_real_numbers_are_refused(
    dtype: torch.dtype, single: dict[str, Tensor], tmp_path: Path
) -> None:
    name = next(name for name in single if name.startswith("first."))
    source = toy.write(tmp_path / "x.ckpt", {**single, name: single[name].to(dtype)})
    _refused(source, tmp_path / "model", f"{name} is of {dtype}".replace("torch.", ""))


def test_values_that_are_no_numbers_are_told(single: dict[str, Tensor], tmp_path: Path) -> None:
    assert converting.convert(prepared(single, tmp_path / "sound")) == []
    name = next(name for name in single if name.startswith("first."))
    spoilt = single[name].clone()
    spoilt.view(-1)[3] = torch.nan
    [line] = converting.convert(prepared({**single, name: spoilt}, tmp_path / "spoilt"))
    assert f"{name} has values that are NaN or infinite" in line
    assert str(tmp_path / "spoilt.safetensors") in line


def prepared(state: dict[str, Tensor], to: Path) -> converting.Conversion:
    source = toy.write(to.with_suffix(".safetensors"), state)
    return converting.prepare([str(source)], to)


def test_unknown_files_and_wrong_models_are_said(single: dict[str, Tensor], tmp_path: Path) -> None:
    strange = toy.write(tmp_path / "x.safetensors", {"a.b": torch.zeros(1)})
    _refused(strange, tmp_path / "model", r"no layout that is known here \(it holds a.b \.\.\.\)")
    source = toy.write(tmp_path / "y.safetensors", single)
    with pytest.raises(ConfigError, match=r"y.safetensors and .*y.safetensors both hold codecs.im"):
        prepare([str(source), str(source)], tmp_path / "model")
    with pytest.raises(ConfigError, match="unknown dtype 'bf61'; did you mean 'bf16'"):
        prepare([str(source)], tmp_path / "model", dtype="bf61")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        prepare([str(source)], source)
    text = tmp_path / "other.toml"
    text.write_text(re.sub(r"(\[codecs.image\]\nkind = ).*\n(.*\n)+?\n", r"\1'mel'\nmel={}\n"
        "autoencoder={in_channels=1,latent_channels=4,channels=16}\nvocoder={}\n\n",
        PRESET.read_text()))  # fmt: skip
    with pytest.raises(ConfigError, match=r"codecs.image of model 'small' has a MelCodecConfig"):
        prepare([str(source)], tmp_path / "model", model=str(text))


def test_files_of_a_layout_that_hold_nothing_for_us_are_passed_over(
    toy_folder: Path, tmp_path: Path
) -> None:
    useless = toy.write(tmp_path / "x.safetensors", {"unsafe.weight": torch.zeros(1)})
    conversion = _convert(useless, tmp_path / "model", toy_folder)
    assert conversion.plan.sources[0].unused == {"unsafe.weight": "judges pictures"}
    with pytest.raises(ConfigError, match="nothing in it has a use in model 'small'"):
        prepare([str(useless)], tmp_path / "other")


def test_layouts_of_different_models_need_a_choice(
    single: dict[str, Tensor], toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    other = replace(toy.FOLDER, preset="tiny")
    monkeypatch.setattr(registry, "LAYOUTS", (toy.TOY, other))
    source = toy.write(tmp_path / "x.safetensors", single)
    with pytest.raises(ConfigError, match=r"belong to different models .* choose with --model"):
        prepare([str(source), str(toy_folder)], tmp_path / "model")
    prepare([str(source), str(toy_folder)], tmp_path / "model", model=str(PRESET))


def test_a_full_disk_and_an_interruption_leave_the_folder_as_it_was(
    single: dict[str, Tensor], toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source = tmp_path / "model", toy.write(tmp_path / "x.safetensors", single)
    _convert(toy_folder, model)
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}

    def stop(_part: str, done: int, _total: int) -> None:
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(prepare([str(source)], model), stop)
    monkeypatch.setattr(converting.shutil, "disk_usage", lambda _: type("U", (), {"free": 10}))
    with pytest.raises(ConfigError, match="make room, or convert with --dtype bf16"):
        convert(prepare([str(source)], model))
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_on_another_disk_is_written_there(
    single: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source = tmp_path / "model", toy.write(tmp_path / "x.safetensors", single)
    other = tmp_path / "other disk"
    other.mkdir()
    model.symlink_to(other)  # a mount point looks the same from inside
    asked: list[Path] = []
    usage, replace = shutil.disk_usage, Path.replace

    def noted(path: Path) -> object:
        asked.append(path.resolve())
        return usage(path)

    def on_one_disk(one: Path, to: Path) -> Path:
        if other not in one.resolve().parents:
            raise OSError(18, "Invalid cross-device link")
        return replace(one, to)

    monkeypatch.setattr(shutil, "disk_usage", noted)
    monkeypatch.setattr(Path, "replace", on_one_disk)
    _convert(source, model)
    assert asked == [other]
    assert part_files(model, "codecs.image")
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_all_files_are_in_the_folder(
    number: int,
    single: dict[str, Tensor],
    toy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, source = tmp_path / "model", toy.write(tmp_path / "x.safetensors", single)
    _convert(toy_folder, model)
    replace, moved = Path.replace, []

    def interrupted(one: Path, to: Path) -> Path:
        signal.raise_signal(number)
        moved.append(to)
        return replace(one, to)

    before = signal.signal(number, signal.default_int_handler)
    try:
        monkeypatch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _convert(source, model)
    finally:
        signal.signal(number, before)
    assert moved[-2:] == [model / "config.toml", model / ORIGIN]
    assert part_files(model, "codecs.image")
    assert "codecs.image" in read_origin(model)["parts"]


# --- memory ---

_MEASURED = """
import json, sys, threading, time
import torch
torch.set_num_threads(1)
from codi.cli import main
from codi.convert import layouts as registry
from tests.convert.test_converting import large_layouts

def anonymous():
    [line] = [l for l in open("/proc/self/status") if l.startswith("RssAnon")]
    return int(line.split()[1]) * 1024

def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.001)

words, preset = sys.argv[2:], sys.argv[1]
registry.LAYOUTS = large_layouts(preset)
if words[0] == "convert":
    main([*words, "--dry-run"])  # what is imported and planned is not what is measured
base = peak = anonymous()
threading.Thread(target=watch, daemon=True).start()
code = main(words)
print(json.dumps({"code": code, "base": base, "peak": peak}))
"""


def large_layouts(preset: str) -> tuple[ForeignLayout, ...]:
    """Return a layout of the toy vision diffuser alone, for a model of another size."""
    return (ForeignLayout("large", "nobody's", preset, (toy.VISION,)),)


def _large_file(path: Path, preset: Path, channels: int) -> None:
    """Write a file of the toy diffuser: zeros, which take no room on the disk."""
    head, found, tail = PRESET.read_text().partition("[diffusers.vision]")
    preset.write_text(head + found + tail.replace("channels = 16", f"channels = {channels}", 1))
    model = load_config(preset)
    table = toy.VISION.correspondence(model, "diffusers.vision")
    shapes = fresh.shapes_of(model.part("diffusers", "vision").build)
    slots = {}
    for name, shape in shapes.items():
        foreign = table.foreign(name)
        if table.why_fresh(name) is None and foreign is not None:
            slots["model." + foreign[0]] = Slot(tuple(shape.shape), torch.float32)
    with pytest.raises(ConfigError, match="was not written"), TensorFile(path, slots):
        pass


def _measured(preset: Path, *words: str) -> dict[str, int]:
    """Run the command line in a process of its own, and return its peak of anonymous memory."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(preset), *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    measured: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert measured["code"] == 0, done.stderr
    return measured


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs the memory that Linux counts"
)


@needs_proc
def test_a_conversion_takes_the_memory_of_a_few_tensors(tmp_path: Path) -> None:
    source, preset = tmp_path / "x.safetensors", tmp_path / "large.toml"
    _large_file(source, preset, 128)
    assert source.stat().st_size > 50e6
    to = str(tmp_path / "to")
    measured = _measured(preset, "convert", str(source), "--to", to, "--dtype", "bf16", "--quiet")
    assert measured["peak"] - measured["base"] < 40e6


@needs_proc
@pytest.mark.slow
def test_large_files_are_converted_and_exported_below_two_gigabytes(tmp_path: Path) -> None:
    source, preset = tmp_path / "x.safetensors", tmp_path / "large.toml"
    _large_file(source, preset, 704)
    assert source.stat().st_size > 1.5 * 2**30
    torch.save(load_file(source), tmp_path / "x.pth")
    peaks = [
        _measured(preset, "convert", str(tmp_path / name), "--to", str(tmp_path / to), *dtype)
        for name, to, dtype in (
            ("x.safetensors", "bf16", ["--dtype", "bf16"]),
            ("x.pth", "fp32", []),
        )
    ]
    exported = ("export", str(tmp_path / "fp32"), "--as", "large", "--to", str(tmp_path / "back"))
    peaks.append(_measured(preset, *exported))
    assert max(found["peak"] for found in peaks) < 0.75 * 2**30
    assert (tmp_path / "back" / "toy.safetensors").stat().st_size > 1.5 * 2**30


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_largest_old_file_that_is_read_is_converted_below_two_gigabytes(
    tmp_path: Path,
) -> None:
    source, preset = tmp_path / "x.safetensors", tmp_path / "large.toml"
    _large_file(source, preset, 608)
    torch.save(load_file(source), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert 0.95 * LEGACY_BYTES < (tmp_path / "x.pth").stat().st_size <= LEGACY_BYTES
    for name, dtype in (("fp32", []), ("bf16", ["--dtype", "bf16"])):
        words = ("convert", str(tmp_path / "x.pth"), "--to", str(tmp_path / name), *dtype)
        assert _measured(preset, *words)["peak"] < 2 * 2**30
