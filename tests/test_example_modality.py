"""The fifth modality of examples/depth.py: trained, generated, kept, from the command line too."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from codi.cli import main
from codi.cli.plugins import load_plugin
from codi.config import ConfigError
from codi.data import source
from codi.data.source import ShardsConfig
from codi.modalities import MediaType, base
from codi.pipeline import Condition, Generation, Pipeline, load
from codi.training.loop import Run, RunSettings
from codi.training.recipe import Recipe, load_recipe
from codi.weights import save_model
from codi.worlds.bounce import sample_scene
from codi.worlds.bounce.picture import HORIZON_PX, background_picture, render_frames
from tests.small import PRESET, awake_model

EXAMPLES = Path(__file__).parents[1] / "examples"
PLUGIN, RECIPE = EXAMPLES / "depth.py", EXAMPLES / "depth.toml"

SMALLER = (
    "modalities.depth.latent=[4, 1, 4, 4]",
    "codecs.depth.channels=16",
    "codecs.depth.multipliers=[1, 1]",
    "codecs.depth.patch=8",
    "encoders.depth.context_width=32",
    "encoders.depth.widths=[16, 16]",
    "encoders.depth.patch=8",
    "encoders.depth.grid=2",
    "encoders.depth.width=32",
    "environments.depth.widths=[8, 16]",
    "environments.depth.slots=8",
    "environments.depth.environment_width=16",
    "environments.depth.projection=8",
    "diffusers.depth.context_width=32",
    "diffusers.depth.environment_width=16",
)
"""What makes the example's parts fit the tests' model."""


@pytest.fixture(scope="module")
def depth() -> Iterator[ModuleType]:
    """Return the example as a module, and forget afterwards what it registered."""
    tables: tuple[dict[str, Any], ...] = (
        base._REGISTRY,
        source.SOURCES,
        source.DECODERS,
    )
    before = [dict(table) for table in tables]
    load_plugin(str(PLUGIN))
    found = next(m for m in sys.modules.values() if getattr(m, "__file__", "") == str(PLUGIN))
    yield found
    for table, entries in zip(tables, before, strict=True):
        for name in table.keys() - entries.keys():
            del table[name]
    del sys.modules[found.__name__]  # and nothing else: torch cannot be imported twice


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model of the four modalities in which everything acts."""
    folder = tmp_path_factory.mktemp("started")
    model = awake_model()
    for encoder in model.role("encoders").values():
        encoder.get_buffer("mean").fill_(0.01)  # measured, as after alignment
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def recipe(depth: ModuleType, started: Path) -> Recipe:
    """Return the example's recipe, with few steps, on the tests' model."""
    whole = load_recipe(RECIPE, ["data.pictures.clips=12"])
    stages = tuple(dataclasses.replace(stage, steps=3, batch=4, warmup=1) for stage in whole.stage)
    short = dataclasses.replace(
        whole,
        model=str(PRESET),
        starts_from=str(started),
        overrides=(*whole.overrides, *SMALLER),
        stage=stages,
    )
    short.check()
    return short


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the model after all stages."""
    run = Run(recipe, RunSettings(tmp_path_factory.mktemp("run"), sample_every=0))
    run.run()
    assert all(run.done(stage) for stage in recipe.stage)
    return run.folder


@pytest.fixture
def pipeline(trained: Path) -> Pipeline:
    return load(trained, device="cpu")


@pytest.fixture
def maps(depth: ModuleType, tmp_path: Path) -> list[Path]:
    """Return PNG files of two depth maps."""
    paths = [tmp_path / f"depth-{seed}.png" for seed in (1, 2)]
    for seed, path in zip((1, 2), paths, strict=True):
        Image.fromarray(depth.render_depth(sample_scene(seed), 0.5)).save(path)
    return paths


# The file itself ----------------------------------------------------------------------------------


def test_the_media_type_fulfils_the_contract_and_its_files_lose_nothing(
    depth: ModuleType, maps: list[Path], tmp_path: Path
) -> None:
    media = depth.DepthMedia(64)
    assert isinstance(media, MediaType)
    item, notes = media.load(maps[0])
    assert (item.mode, item.size, notes) == ("L", (64, 64), [])
    array = np.asarray(media.to_array(item))
    assert (array.shape, array.dtype) == ((1, 64, 64), np.uint8)
    x = media.to_tensor([array, array])
    assert x.shape == (2, 1, 1, 64, 64)
    assert x.min() >= -1.0
    assert x.max() <= 1.0
    assert all(np.array_equal(media.to_array(again), array) for again in media.from_tensor(x))
    media.save(item, tmp_path / "again.png")
    assert np.array_equal(media.to_array(media.load(tmp_path / "again.png")[0]), array)
    assert media.picture(item).shape == (64, 64, 3)


def test_colour_pictures_of_any_size_become_maps(depth: ModuleType) -> None:
    item, notes = depth.DepthMedia(64).load(Image.new("RGB", (100, 80), "white"))
    assert (item.mode, item.size) == ("L", (64, 64))
    assert len(notes) == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_map_is_near_where_its_picture_shows_the_object(depth: ModuleType, seed: int) -> None:
    scene = sample_scene(seed)
    nearness = depth.render_depth(scene, 0.7)[:HORIZON_PX]
    picture = render_frames(scene, np.array([0.7]))[0].astype(float)
    changed = np.abs(picture - background_picture(scene.facts["background"])).max(-1)[:HORIZON_PX]
    assert (changed[nearness == 0] < 2.0).mean() > 0.99  # where the sky is bare
    solid = nearness > 180
    assert solid.any() == (nearness > 0).any()
    assert (changed[solid] > 4.0).mean() > 0.5 if solid.any() else True


def test_a_pair_shows_one_instant_and_its_captions_say_what_it_shows(depth: ModuleType) -> None:
    made = depth.DepthWorldConfig(clips=8).build(load_recipe(RECIPE).model_config(), None)
    arrays, record = made.read(5)
    assert {name: array.shape for name, array in arrays.items()} == {
        "image": (1, 64, 64, 3),
        "depth": (1, 64, 64),
    }
    again = depth.render_depth(made.scene(5), record["time_s"])
    assert np.array_equal(arrays["depth"][0], again)
    rng = np.random.default_rng(0)
    said = [made.caption(record, "depth", rng) for _ in range(20)]
    assert set().union(*(caption.claim for caption in said)) == {"shape", "size"}
    assert made.matches([caption.claim for caption in said], [record]).all()


def test_shards_may_hold_maps(
    depth: ModuleType, recipe: Recipe, maps: list[Path], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "pictures-0.tar", "w") as archive:
        for name, data in (
            ("a.json", json.dumps({"captions": ["a star"]}).encode()),
            ("a.depth.png", maps[0].read_bytes()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    made = ShardsConfig(("pictures-*.tar",)).build(recipe.model_config(), tmp_path)
    assert made is not None
    arrays, _ = made.read(0)
    assert list(arrays) == ["depth"]
    assert np.array_equal(arrays["depth"][0], np.asarray(Image.open(maps[0])))


# The model ----------------------------------------------------------------------------------------


def test_only_the_new_parts_were_trained(trained: Path, started: Path) -> None:
    def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
        files = folder.glob("*/*.safetensors")
        return {str(file.relative_to(folder)): load_file(file) for file in files}

    old, new = weights(started), weights(trained)
    assert new.keys() - old.keys() == {
        f"depth/{role}.safetensors" for role in ("codec", "encoder", "environment", "diffuser")
    }
    for file, tensors in old.items():
        assert all(torch.equal(new[file][key], value) for key, value in tensors.items()), file


def test_picture_and_map_are_made_together(pipeline: Pipeline) -> None:
    made = pipeline.generate([("text", "a large star")], ["image", "depth"], seeds=[0, 1])
    assert [(item.mode, item.size) for item in made["depth"]] == [("L", (64, 64))] * 2
    assert [(item.mode, item.size) for item in made["image"]] == [("RGB", (64, 64))] * 2
    again = pipeline.generate([("text", "a large star")], ["image", "depth"], seeds=[1])
    assert _close(made["depth"][1], again["depth"][0])


def test_all_five_are_made_together(pipeline: Pipeline) -> None:
    to = ["text", "image", "video", "audio", "depth"]
    assert list(pipeline.generate([("text", "a star")], to, steps=1)) == to


@torch.no_grad()
@pytest.mark.parametrize(("other", "changed"), [("depth", "image"), ("image", "depth")])
def test_each_hears_the_other(pipeline: Pipeline, other: str, changed: str) -> None:
    pipeline.require(["image", "depth"], [], {})
    codi = pipeline.model.codi(["image", "depth"])
    shapes = {name: pipeline.config.modality(name).latent for name in ("image", "depth")}
    z = {name: torch.randn(1, *shape) for name, shape in shapes.items()}
    t = {name: torch.tensor([500]) for name in z}
    moved = z | {other: torch.randn(1, *shapes[other])}
    context = pipeline.empty_context(1)
    before, after = codi(z, t, context)[changed], codi(moved, t, context)[changed]
    assert not torch.equal(before, after)
    alone = pipeline.model.codi([changed])
    name = {changed: z[changed]}
    assert not torch.equal(alone(name, t, context)[changed], before)


def test_a_map_is_a_condition(pipeline: Pipeline, maps: list[Path]) -> None:
    contexts = [pipeline.context([Condition("depth", path)]) for path in maps]
    assert contexts[0].shape == pipeline.context([Condition("text", "a star")]).shape
    assert (contexts[0] - contexts[1]).abs().max() > 1e-5
    mixed = pipeline.context([Condition("depth", path, 1.0) for path in maps])
    torch.testing.assert_close(mixed, (contexts[0] + contexts[1]) / 2)
    made = pipeline.generate([("depth", maps[0]), ("text", "a red star")], ["image"])
    assert made["image"][0].size == (64, 64)


def test_a_map_is_kept(pipeline: Pipeline, maps: list[Path]) -> None:
    def beside(path: Path) -> Generation:
        return pipeline.generate([("text", "a star")], ["image"], keep={"depth": path})

    first, second = beside(maps[0]), beside(maps[1])
    assert np.array_equal(np.asarray(first["depth"][0]), np.asarray(Image.open(maps[0])))
    assert not np.array_equal(np.asarray(first["image"][0]), np.asarray(second["image"][0]))


def _close(a: Image.Image, b: Image.Image) -> bool:
    return bool(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max() <= 1)


# The command line ---------------------------------------------------------------------------------


def test_the_command_line_gains_its_options(
    trained: Path, maps: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--plugin", PLUGIN, "generate", "--model", trained, "--out", out, "--device", "cpu"]
    more = ["--depth", maps[0], "--text", "a star", "--to", "image", "depth", "--steps", "1"]
    assert main([str(word) for word in (*words, *more, "--quiet")]) == 0
    assert {path.name for path in out.iterdir()} == {
        "000-image.png",
        "000-depth.png",
        "manifest.json",
    }
    with Image.open(out / "000-depth.png") as made:
        assert (made.mode, made.size) == ("L", (64, 64))
    manifest = json.loads((out / "manifest.json").read_text())
    assert [c["modality"] for c in manifest["conditions"]] == ["depth", "text"]


def test_the_recipe_is_planned_without_weights(
    depth: ModuleType, capsys: pytest.CaptureFixture[str], tmp_cwd: Path
) -> None:
    assert main(["--plugin", str(PLUGIN), "train", str(RECIPE), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for stage in load_recipe(RECIPE).stage:
        assert stage.name in printed
    assert "data pictures: there" in printed


def test_without_the_file_its_model_says_what_is_missing(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        base, "_REGISTRY", {n: entry for n, entry in base._REGISTRY.items() if n != "depth"}
    )
    with pytest.raises(ConfigError, match="unknown modality 'depth'"):
        load(trained, device="cpu").generate([("text", "a star")], ["depth"])
