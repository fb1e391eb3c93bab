"""The registered layouts, on every name and shape of the released files, and on the goldens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codi.build import load_config, parameter_counts
from codi.config import ConfigError
from codi.convert import layouts
from codi.convert.golden import Golden
from codi.convert.planning import Plan, default_preset, make_plan, recognised
from codi.convert.reading import Checkpoint, Stored
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
