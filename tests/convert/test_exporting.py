"""Exporting undoes converting, bit for bit, for every layout that is registered."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from codi.build import Model, ModelConfig, load_config
from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.config import ConfigError
from codi.convert import layouts as registry
from codi.convert.converting import convert, prepare
from codi.convert.exporting import export_paths, prepare_export, write_export
from codi.convert.rules import SAME, Layout, Table
from codi.convert.sources import ForeignLayout
from codi.weights import part_files, save_model
from tests.convert import toy
from tests.convert.small_parts import shrunk

REGISTERED = registry.LAYOUTS  # before a fixture changes it
CASES = [
    pytest.param(layout, part, id=f"{layout.name}: {part}")
    for layout in (
        *REGISTERED,
        *toy.LAYOUTS,
        # Its text encoder, where a model has one with the projection.
        dataclasses.replace(registry.CLIP, preset="paper", modules=registry.CLIP.modules[:1]),
    )
    for part in dict.fromkeys(
        part for module in layout.modules for part in module.parts(load_config(layout.preset))
    )
]


def _changed(model: ModelConfig, part: str, config: Any) -> ModelConfig:
    """Return a model with another configuration of one part."""
    role, name = part.split(".", 1)
    tables = getattr(model, role)
    table = _without_none(dataclasses.asdict(config)) | {"kind": tables[name]["kind"]}
    return dataclasses.replace(model, **{role: {**tables, name: table}})  # type: ignore[arg-type]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def _random(model: Model, seed: int) -> None:
    """Give every tensor values of its own, buffers too."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator))


@pytest.mark.parametrize(("layout", "part"), CASES)
@settings(max_examples=3, phases=[Phase.generate])  # every example builds a model
@given(data=st.data())
def test_export_after_convert_is_the_identity(
    layout: ForeignLayout,
    part: str,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    small = load_config(layout.preset)
    modules = [module for module in layout.modules if part in module.parts(small)]
    companions = {name for module in modules for name in module.companions(small)}
    for one in (part, *sorted(companions)):
        role, name = one.split(".", 1)
        small = _changed(small, one, data.draw(shrunk(small.part(role, name)), label=one))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    model = Model(small, [part])
    _random(model, data.draw(st.integers(0, 9)))
    save_model(model, folder / "ours", dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "LAYOUTS", (layout,))
        export = prepare_export(folder / "ours", layout.name)
        write_export(export, folder / "theirs")
        again = prepare([str(folder / "theirs")], folder / "back", model=str(folder / "ours"))
        convert(again)
        write_export(prepare_export(folder / "back", layout.name), folder / "theirs again")
    left_out = {key.partition(": ")[2] for key in export.left_out if key.startswith(f"{part}: ")}
    ours, back = (_state(folder / which, part) for which in ("ours", "back"))
    assert ours.keys() == back.keys()
    for key in ours.keys() - left_out:
        assert ours[key].dtype == back[key].dtype, key
        assert torch.equal(ours[key], back[key]), key
    assert not any(source.unused for source in again.plan.sources)
    for path in export_paths(export, folder / "theirs").values():
        once_more = folder / "theirs again" / path.relative_to(folder / "theirs")
        assert path.read_bytes() == once_more.read_bytes()


def _state(folder: Path, part: str) -> dict[str, Tensor]:
    return {k: v for path in part_files(folder, part) for k, v in load_file(path).items()}


@pytest.mark.parametrize(("layout", "part"), CASES)
def test_every_table_is_a_bijection_at_full_size(layout: ForeignLayout, part: str) -> None:
    model = load_config(layout.preset)
    role, name = part.split(".", 1)
    with torch.device("meta"):
        state = model.part(role, name).build().state_dict()
    placed: set[str] = set()
    for module in layout.modules:
        if part not in module.parts(model):
            continue
        table = module.correspondence(model, part)
        for ours, value in state.items():
            found = None if table.why_fresh(ours) else table.foreign(ours)
            if found is not None:
                placed.add(ours)
                assert ours in dict(table.all_ours(found[0])), (ours, found[0])
                assert table.all_ours(found[0]), found[0]
                joined = {n: state[n] for n, _ in table.all_ours(found[0])}
                foreign = table.to_foreign(found[0], joined)
                assert found[1].to_ours(foreign).shape == value.shape, ours
            elif table.why_fresh(ours):
                placed.add(ours)
    assert placed == set(state)


# --- the toy layouts ---


@pytest.fixture
def converted(layouts: None, single: dict[str, Tensor], toy_folder: Path, tmp_path: Path) -> Path:
    source = toy.write(tmp_path / "x.safetensors", single)
    convert(prepare([str(source), str(toy_folder)], tmp_path / "model"))
    return tmp_path / "model"


def test_a_file_comes_back_and_says_what_it_left_out(
    converted: Path, single: dict[str, Tensor], tmp_path: Path
) -> None:
    export = prepare_export(converted, "toy")
    [path] = write_export(export, tmp_path / "back.safetensors")
    assert path == tmp_path / "back.safetensors"
    back = load_file(path)
    assert back.keys() == single.keys()
    assert all(torch.equal(back[name], value) for name, value in single.items())
    assert export.left_out["codecs.image: scale"] == "one"
    assert not list(tmp_path.glob(".*"))


def test_a_folder_comes_back_with_what_its_library_expects(
    converted: Path, toy_folder: Path, tmp_path: Path
) -> None:
    write_export(prepare_export(converted, "toy-folder"), tmp_path / "back")
    for path in toy_folder.rglob("*.safetensors"):
        there = load_file(tmp_path / "back" / path.relative_to(toy_folder))
        mine = load_file(path)
        assert there.keys() == mine.keys()
        assert all(torch.equal(there[name], value) for name, value in mine.items())
    assert json.loads((tmp_path / "back/text/config.json").read_text()) == {"width": 32}


@pytest.mark.parametrize("name", ["x.ckpt", "x.pth", "x.bin", "x.pt"])
def test_a_name_of_another_kind_of_file_is_no_folder(
    name: str, converted: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: files are written as safetensors.*x.safe"):
        write_export(prepare_export(converted, "toy"), tmp_path / name)
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    write_export(prepare_export(converted, "toy"), tmp_path / name)
    assert (tmp_path / name / "toy.safetensors").is_file()


def test_one_file_alone_leaves_what_lies_beside_it(converted: Path, tmp_path: Path) -> None:
    shutil.rmtree(converted / "audio")
    (tmp_path / "config.json").write_text("another's")
    write_export(prepare_export(converted, "toy-folder"), tmp_path / "text.safetensors")
    assert (tmp_path / "config.json").read_text() == "another's"


def test_a_place_that_is_a_file_is_said(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ConfigError, match=r"taken/toy\.safetensors: cannot be written: .*--to"):
        write_export(prepare_export(converted, "toy"), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_what_cannot_be_exported_is_said(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown layout 'toyy'; did you mean 'toy'"):
        prepare_export(converted, "toyy")
    with pytest.raises(ConfigError, match=r"has 3 files .* name a folder with --to"):
        write_export(prepare_export(converted, "toy-folder"), tmp_path / "x.safetensors")
    shutil.rmtree(converted / "image")
    assert prepare_export(converted, "toy").absent == ["codecs.image"]
    shutil.rmtree(converted / "vision")
    with pytest.raises(ConfigError, match=r"no part for the layout 'toy' \(codecs.image, diff"):
        prepare_export(converted, "toy")


def test_parts_that_share_a_foreign_tensor_must_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = toy.trained("codecs.image")
    save_model(model, tmp_path)

    def know(layout: Layout) -> None:
        def table(config: AutoencoderKLConfig) -> Table:
            first, *rules = toy.autoencoder(config).rules
            rules = [dataclasses.replace(first, layout=layout), *rules]
            return dataclasses.replace(toy.autoencoder(config), rules=tuple(rules))

        twice = (toy.PICTURES, dataclasses.replace(toy.PICTURES, table=table))
        monkeypatch.setattr(registry, "LAYOUTS", (dataclasses.replace(toy.TOY, modules=twice),))

    know(SAME)
    assert prepare_export(tmp_path, "toy").files
    know(Layout(lambda x: x - 1, lambda x: x + 1))
    with pytest.raises(ConfigError, match="differ in it; this model cannot be written"):
        prepare_export(tmp_path, "toy")
