"""The registered layouts, on every name and shape of the released files, and on the goldens."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from codi.build import load_config, parameter_counts
from codi.config import ConfigError, to_toml
from codi.convert import converting, layouts
from codi.convert.golden import Golden
from codi.convert.kept_files import BERT_TOKENIZER, CLIP_TOKENIZER, GPT2_TOKENIZER
from codi.convert.planning import Plan, default_preset, make_plan, recognised
from codi.convert.reading import Checkpoint, Stored
from codi.convert.sources import ForeignLayout
from codi.convert.verifying import goldens_of
from tests.released import GOLDENS, LAYOUT, needs_goldens

FILES = (
    "CoDi_encoders",
    "CoDi_video_diffuser_8frames",
    "CoDi_text_diffuser",
    "CoDi_audio_diffuser_m",
)
needs_layout = pytest.mark.skipif(not LAYOUT.is_dir(), reason="needs the released files' names")


def _unread() -> torch.Tensor:
    raise AssertionError("a plan reads nothing")


def _checkpoint(name: str) -> Checkpoint:
    """Return a released file of which only names and shapes are known."""
    stored = {}
    for line in (LAYOUT / f"{name}.pth.tsv").read_text().splitlines()[1:]:
        key, shape, dtype, _kind = line.split("\t")
        sizes = () if shape == "scalar" else tuple(map(int, shape.split("x")))
        stored[key] = Stored(sizes, getattr(torch, dtype), _unread)
    return Checkpoint(Path(f"{name}.pth"), stored)


def _plan(*names: str) -> Plan:
    sources = recognised(map(_checkpoint, names), layouts.LAYOUTS)
    assert {source.layout.name for source in sources} == {"released"}
    return make_plan(sources, load_config(default_preset(sources)))


@needs_layout
@pytest.mark.parametrize("name", FILES)
def test_every_name_of_a_released_file_is_ours_or_has_a_reason(name: str) -> None:
    plan = _plan(name)
    [source] = plan.sources
    assert len(source.used) + len(source.unused) == len(source.checkpoint.stored)
    assert all(source.unused.values())
    assert [part.part for part in plan.parts.values() if part.missing or part.fresh] == []


@needs_layout
def test_the_released_files_are_the_whole_release_preset() -> None:
    config = load_config("release")
    assert _plan(*FILES).parts.keys() == parameter_counts(config).keys()


TOKENIZERS = {
    "clip": {"vocab.json": '{"<|startoftext|>": 0}', "merges.txt": "#version: 0.2"},
    "gpt2": {"vocab.json": r'{"\u0120the": 0}', "merges.txt": "#version: 0.2"},
    "bert": {"vocab.txt": "[CLS]"},
}


def _tokenizer(folder: Path, which: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in TOKENIZERS[which].items():
        (folder / name).write_text(text)


def _kept(folder: Path) -> dict[str, str]:
    """Return where each tokenizer of the released CoDi is found beside its weights."""
    kinds = (CLIP_TOKENIZER, BERT_TOKENIZER, GPT2_TOKENIZER)
    found = {kind.key: kind.found(folder / "CoDi_encoders.pth") for kind in kinds}
    return {key: paths[0].parent.name for key, paths in found.items() if paths}


def test_tokenizers_beside_the_weights_are_told_apart(tmp_path: Path) -> None:
    here = tmp_path.name
    assert _kept(tmp_path) == {}
    _tokenizer(tmp_path, "bert")
    _tokenizer(tmp_path, "gpt2")  # the same names as CLIP's
    assert _kept(tmp_path) == {"encoder_tokenizer": here, "decoder_tokenizer": here}
    _tokenizer(tmp_path, "clip")
    assert _kept(tmp_path) == {"encoder_tokenizer": here, "tokenizer": here}
    _tokenizer(tmp_path / "gpt2", "gpt2")
    _tokenizer(tmp_path / "bert-base-cased", "bert")
    _tokenizer(tmp_path / "clip-vit-large-patch14", "clip")
    (tmp_path / "vocab.json").unlink()
    assert _kept(tmp_path) == {
        "tokenizer": "clip-vit-large-patch14",
        "encoder_tokenizer": "bert-base-cased",
        "decoder_tokenizer": "gpt2",
    }


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of the released encoders, of which only names and shapes are known."""
    path = tmp_path / "download" / "CoDi_encoders.pth"
    path.parent.mkdir()
    checkpoint = replace(_checkpoint("CoDi_encoders"), path=path)
    monkeypatch.setattr(converting, "open_source", lambda _name: [checkpoint])
    return path.parent


@needs_layout
def test_the_released_codi_keeps_the_tokenizers_that_lie_beside_it(
    released: Path, tmp_path: Path
) -> None:
    _tokenizer(released, "clip")
    _tokenizer(released / "gpt2", "gpt2")
    _tokenizer(released / "bert-base-cased", "bert")
    conversion = converting.prepare(["x"], tmp_path / "model")
    assert not conversion.wanting
    assert not conversion.fetched
    model = conversion.plan.model
    assert model.encoders["text"]["tokenizer"] == "./text/encoder-tokenizer"
    # A folder also where it holds one file: BERT's is read from the folder.
    assert model.codecs["text"]["encoder_tokenizer"] == "./text/codec-encoder_tokenizer"
    assert model.codecs["text"]["decoder_tokenizer"] == "./text/codec-decoder_tokenizer"


@needs_layout
def test_the_released_codi_says_which_tokenizers_are_absent_and_where_to_put_them(
    released: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    conversion = converting.prepare(["x"], folder)
    assert conversion.wanting == {
        folder / "text" / "encoder-tokenizer": ("vocab.json", "merges.txt")
    }
    assert conversion.fetched == {
        "bert-base-cased": ("vocab.txt",),
        "gpt2": ("vocab.json", "merges.txt"),
    }
    model = conversion.plan.model
    assert model.encoders["text"]["tokenizer"] == "./text/encoder-tokenizer"
    assert model.codecs["text"]["decoder_tokenizer"] == "gpt2"
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(model))
    (folder / "text").mkdir()
    _tokenizer(folder / "text" / "encoder-tokenizer", "clip")
    _tokenizer(folder / "gpt2", "gpt2")
    again = converting.prepare(["x"], folder)
    assert not again.wanting
    assert list(again.fetched) == ["bert-base-cased"]
    assert again.plan.model.codecs["text"]["decoder_tokenizer"] == "./gpt2"


# --- the same parts in other files ---


def _placed(name: str, found: dict[str, Stored]) -> Checkpoint:
    return Checkpoint(Path(name), found)


def _versatile() -> dict[str, Stored]:
    """Return Versatile Diffusion's text diffuser, which is CoDi's without what joins streams."""
    released = _checkpoint("CoDi_text_diffuser").stored
    return {name: stored for name, stored in released.items() if "connecters" not in name}


def _parts(plan: Plan) -> set[str]:
    return {part.part for part in plan.parts.values() if part.drawn}


@needs_layout
def test_versatile_diffusion_is_known_with_and_without_what_lies_beside_its_text() -> None:
    encoders = _checkpoint("CoDi_encoders").stored
    image = {
        name.replace("unet_text", "unet_image"): Stored((1,), torch.float32, _unread)
        for name in _versatile()
    }
    beside = {
        name: stored
        for name, stored in encoders.items()
        if name.startswith(("autokl.", "optimus.", "clip.")) and "temporal" not in name
    }
    scale = {"clip.model.logit_scale": encoders["clip.model.logit_scale"]}
    for more, parts in (
        ({}, {"diffusers.text"}),
        (image, {"diffusers.text"}),
        (image | scale, {"diffusers.text"}),
        (
            image | beside,
            {"diffusers.text", "codecs.image", "codecs.text", "encoders.text", "encoders.vision"},
        ),
    ):
        [source] = recognised([_placed("vd.pth", _versatile() | more)], layouts.LAYOUTS)
        assert source.layout is layouts.VERSATILE
        plan = make_plan([source], load_config("release"))
        assert _parts(plan) == parts
        assert all(source.unused.values())
        assert all("image diffuser" in source.unused[name] for name in more if "unet_image" in name)


@needs_layout
def test_the_released_codi_is_told_from_versatile_diffusion() -> None:
    encoders = _checkpoint("CoDi_encoders").stored
    for starts in (("clip.",), ("autokl.", "optimus."), ("optimus.", "clip.")):
        some = {name: stored for name, stored in encoders.items() if name.startswith(starts)}
        [source] = recognised([_placed("some.pth", some)], layouts.LAYOUTS)
        assert source.layout is layouts.RELEASED


@needs_layout
def test_optimus_is_known_whole_and_by_halves() -> None:
    whole = {
        name.removeprefix("optimus."): stored
        for name, stored in _checkpoint("CoDi_encoders").stored.items()
        if name.startswith("optimus.")
    }
    halves = {
        half: _placed(
            f"{half}.bin",
            {n.removeprefix(f"{half}."): s for n, s in whole.items() if n.startswith(half)},
        )
        for half in ("encoder", "decoder")
    }
    config = load_config("release")
    for files in ([_placed("whole.pth", whole)], list(halves.values())):
        plan = make_plan(recognised(files, layouts.LAYOUTS), config)
        assert _parts(plan) == {"codecs.text"}
    for half, other in (("encoder", "decoder"), ("decoder", "encoder")):
        message = (
            rf"{half}\.bin lacks \S+, .*, which {other}/pytorch_model of OPTIMUS in two files "
            r"holds: give them in one call, since codecs\.text is made of"
        )
        with pytest.raises(ConfigError, match=message):
            make_plan(recognised([halves[half]], layouts.LAYOUTS), config)
    cut = dict(halves["encoder"].stored)
    del cut["pooler.dense.bias"]
    message = r"^cut.bin lacks pooler.dense.bias, which codecs.text is made of \(as its encoder\."
    with pytest.raises(ConfigError, match=message):
        make_plan(recognised([_placed("cut.bin", cut), halves["decoder"]], layouts.LAYOUTS), config)


@pytest.mark.parametrize(
    ("layout", "part", "switch"),
    [
        (layouts.SD_DIFFUSERS, "codecs.image", {"inner_channels": 3}),
        (layouts.AUDIOLDM_DIFFUSERS, "codecs.audio", {"vocoder.paired": False}),
        (layouts.AUDIOLDM_DIFFUSERS, "codecs.audio", {"autoencoder.inner_channels": 3}),
    ],
)
def test_what_a_library_cannot_compute_has_no_place_in_its_folders(
    layout: ForeignLayout, part: str, switch: dict[str, object]
) -> None:
    model = load_config(layout.preset)
    role, name = part.split(".", 1)
    tables = copy.deepcopy(getattr(model, role))
    for key, value in switch.items():
        *above, last = key.split(".")
        table = tables[name]
        for step in above:
            table = table[step]
        table[last] = value
    changed = replace(model, **{role: tables})
    known, left = (
        {module.file for module in layout.modules if part in module.parts(m)}
        for m in (model, changed)
    )
    assert len(left) == len(known) - 1


@needs_layout
def test_another_model_of_the_same_kind_is_said() -> None:
    sources = recognised([_checkpoint("CoDi_audio_diffuser_m")], layouts.LAYOUTS)
    with pytest.raises(ConfigError, match="--model"):
        make_plan(sources, load_config("paper"))


@needs_goldens
def test_every_golden_has_a_check_or_goes_with_others() -> None:
    without = [g.name for g in goldens_of(GOLDENS) if not _has_check(g)]
    assert without == ["e_joint_weights_image", "facts"]


def _has_check(golden: Golden) -> bool:
    return any(check.recognises(golden.about) for check in layouts.CHECKS)


def test_names_of_layouts_and_places_of_modules_are_unique() -> None:
    assert len({layout.name for layout in layouts.LAYOUTS}) == len(layouts.LAYOUTS)
    for layout in layouts.LAYOUTS:
        places = [(m.file, m.prefix, m.role, m.of, m.inside) for m in layout.modules]
        assert len(set(places)) == len(places)
        model = load_config(layout.preset)
        for module in layout.modules:
            for part in module.parts(model):
                module.config(model, part)
