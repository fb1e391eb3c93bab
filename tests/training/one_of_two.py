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
from codi.training.distributed import Processes, joined
from codi.training.loop import Run, RunSettings
from codi.training.recipe import Objective, Recipe
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
    assert processes.any(processes.rank == 1)
    assert not processes.any(False)
    processes.check_equal(here)
    with torch.no_grad():
        here["b"].add_(processes.rank)
    with pytest.raises(ConfigError, match="no longer have the same b"):
        processes.check_equal(here)


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
        else:
            out, cache, stop_at = words
            _train(processes, Path(out), Path(cache), int(stop_at))


if __name__ == "__main__":
    main(*sys.argv[1:])
