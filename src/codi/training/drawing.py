"""Which batch every step of a stage sees, drawn in the step's turn or ahead by other processes.

A batch is a function of (seed, stage, step) alone, so it does not matter who draws it, or when.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader, Dataset

from codi.data.batches import Batch, Mixture, keyed_generator
from codi.training.distributed import ALONE, Processes
from codi.training.recipe import Stage

_AHEAD = 4
"""Steps that each process is ahead."""


@dataclass(frozen=True)
class _Steps(Dataset[tuple[int, list[Batch]]]):
    """The batches of one process, of the steps from `first` to the stage's last."""

    seed: int
    stage: Stage
    mixtures: Sequence[Mixture]
    first: int
    processes: Processes

    def __len__(self) -> int:
        return self.stage.steps - self.first

    def __getitem__(self, index: int) -> tuple[int, list[Batch]]:
        """Return the objective that is drawn for a step and the batches it accumulates."""
        stage, step = self.stage, self.first + index
        shares = np.array([objective.share for objective in stage.objectives])
        chance = keyed_generator(self.seed, stage.name, step, "objective")
        which = int(chance.choice(len(shares), p=shares / shares.sum()))
        size = self.processes.share(stage.size(stage.objectives[which]))
        mixture = self.mixtures[which]
        parts = [self.processes.part(i) for i in range(stage.accumulate)]
        return which, [mixture.batch(size, stage.name, step, part) for part in parts]


def draw_ahead(
    seed: int,
    stage: Stage,
    mixtures: Sequence[Mixture],
    first: int,
    workers: int,
    processes: Processes = ALONE,
) -> Iterator[tuple[int, list[Batch]]]:
    """Yield, for the steps from `first` on, the index of the objective and its batches.

    Args:
        seed: of the recipe.
        stage: its objectives, their shares, its batch and steps.
        mixtures: of the objectives.
        first: the step to begin with.
        workers: processes that draw; with 0 a batch is drawn when it is asked for.
        processes: those that train together; each has its own batches.
    """
    loader = DataLoader(
        _Steps(seed, stage, mixtures, first, processes),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,  # which shares the open stores
        worker_init_fn=_ignore_interrupts,
    )
    for which, batches in loader:
        for batch in batches:
            batch.sources = mixtures[which].sources
        yield which, batches


def _ignore_interrupts(_worker: int) -> None:
    """Leave Ctrl-C, which the terminal sends to all processes, to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
