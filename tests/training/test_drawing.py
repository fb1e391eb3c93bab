"""Batches drawn ahead by other processes are the batches of the steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codi.build import Model
from codi.data.batches import Mixture
from codi.data.store import Store
from codi.training.drawing import draw_ahead
from codi.training.loop import Run, RunSettings
from codi.training.recipe import Objective, Stage
from tests.small import small_config
from tests.training.conftest import recipe, reconstruct, stage

ALIGN = Objective("align", {"bounce": 1.0}, {"modality": "audio"}, share=2.0, batch=3)


@pytest.fixture
def mixed(store: Store) -> tuple[Stage, list[Mixture]]:
    config = small_config()
    stage_ = stage("mixed", reconstruct(), ALIGN, accumulate=2, steps=8)
    mixtures = [
        Mixture(config, {"a": store}, {"a": 1.0}, o.build(Model(config, []), "").wanted, {}, 0)
        for o in stage_.objectives
    ]
    return stage_, mixtures


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_others_draw_what_the_trainer_would(mixed: tuple[Stage, list[Mixture]]) -> None:
    stage_, mixtures = mixed
    for first in (0, 3):
        own = list(draw_ahead(7, stage_, mixtures, 0, workers=0))
        assert len(own) == 8
        assert {which for which, _ in own} == {0, 1}
        others = list(draw_ahead(7, stage_, mixtures, first, workers=2))
        for (which, batches), (theirs, drawn) in zip(own[first:], others, strict=True):
            assert which == theirs
            assert len(drawn) == 2
            for a, b in zip(batches, drawn, strict=True):
                assert len(a) == (stage_.objectives[which].batch or stage_.batch)
                assert a.texts == b.texts
                assert all(torch.equal(a.media[name], b.media[name]) for name in a.media)
                # They go on alike: further captions come from the batch's own generator.
                more = [[c.text for c in x.write_captions(("audio",))] for x in (a, b)]
                assert more[0] == more[1]
                if a.captions:
                    assert torch.equal(a.matches(a.captions), b.matches(b.captions))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_run_with_workers_ends_as_one_without(tmp_path: Path) -> None:
    results = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        settings = RunSettings(out, sample_every=0, workers=workers)
        run = Run(recipe(stage(steps=3)), settings)
        run.run()
        results.append({f.name: f.read_bytes() for f in sorted(run.folder.rglob("*.safetensors"))})
    assert results[0]
    assert results[0] == results[1]
