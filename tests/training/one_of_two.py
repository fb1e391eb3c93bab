"""One of two processes that train together: run by torchrun, see test_distributed.py."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from codi.config import ConfigError
from codi.data.batches import Mixture
from codi.data.source import WorldConfig, WorldSource
from codi.data.store import open_store
from codi.training.distributed import Processes, joined
from codi.training.joint import Joint, JointConfig
from codi.training.loop import Run, RunSettings
from codi.training.recipe import Objective, Recipe
from codi.training.task import Draws
from tests.small import awake_model, small_config
from tests.training.conftest import recipe, reconstruct, stage

STEPS = 6


def shared(**changes: Any) -> Recipe:
    """Return two stages, the first with two objectives that train different parts."""
    align = Objective("align", {"bounce": 1.0}, {"modality": "audio"}, share=0.5)
    both = stage("both", reconstruct("text", share=0.5), align, steps=STEPS, **changes)
    return recipe(both, stage("image", steps=2, **changes))


def _check(processes: Processes) -> None:
    """Check what is done together, on numbers."""
    here = {name: nn.Parameter(torch.zeros(3)) for name in "abc"}
    here["a"].grad = torch.full((3,), float(processes.rank))
    if processes.leads:
        here["b"].grad = torch.ones(3)
    processes.average_gradients(here)
    found = [None if p.grad is None else p.grad.tolist() for p in here.values()]
    assert found == [[0.5] * 3, [0.5] * 3, None], found
    assert processes.average({"x": torch.tensor(float(processes.rank))})["x"] == 0.5
    own = {"x": torch.tensor(2.0), f"of {processes.rank}": torch.tensor(5.0)}
    assert processes.average(own) == {"x": 2.0, "of 0": 5.0, "of 1": 5.0}
    assert processes.any(processes.rank == 1)
    assert not processes.any(False)
    processes.check_equal(here)
    with torch.no_grad():
        here["b"].add_(processes.rank)
    with pytest.raises(ConfigError, match="no longer have the same b"):
        processes.check_equal(here)


def _listen(processes: Processes, cache: Path) -> None:
    """Check the numbers of joint training where one stream is all clean in one process."""
    store = open_store(WorldSource(WorldConfig("bounce", 8)), cache)
    streams, clean = ("video", "audio"), float(processes.rank)
    config = JointConfig(streams, ("video",), clean=clean, given={"video": 1.0})
    task = Joint(awake_model(), config)
    codecs = dict.fromkeys(streams, "untrained")
    mixture = Mixture(small_config(), {"a": store}, {"a": 1.0}, task.wanted, codecs, 0)
    losses = task(mixture.batch(4, "test"), Draws(torch.Generator().manual_seed(processes.rank)))
    assert ("video" in losses) == processes.leads
    shown = processes.average(losses)
    assert set(shown) == {"contrast", "video", "audio"}
    if processes.leads:
        assert torch.equal(shown["video"], losses["video"])
    assert shown["video"] > 0
    assert shown["audio"] != losses["audio"]


def _train(processes: Processes, out: Path, cache: Path, stop_at: int) -> None:
    """Train, or stop in one process after a step, which stops both."""
    logged = 0

    def report(_values: dict[str, float]) -> None:
        nonlocal logged
        logged += 1
        if logged == stop_at and processes.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = RunSettings(out, cache, log_every=1, checkpoint_every=2, sample_every=0)
    run = Run(shared(), settings, report=report, processes=processes, say=print)
    try:
        run.run()
    except KeyboardInterrupt:
        assert stop_at


def main(what: str, *words: str) -> None:
    """Do what test_distributed.py asks for."""
    with joined("cpu") as (processes, device):
        assert (processes.count, device) == (2, "cpu")
        if what == "check":
            _check(processes)
        elif what == "listen":
            _listen(processes, Path(*words))
        else:
            out, cache, stop_at = words
            _train(processes, Path(out), Path(cache), int(stop_at))


if __name__ == "__main__":
    main(*sys.argv[1:])
