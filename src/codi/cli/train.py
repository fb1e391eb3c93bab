"""`codi train`: run a recipe, or show what it would do."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codi.cli.options import add_device, named_path, resolve_device, whole_number
from codi.config import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from codi.cli.progress import Display
    from codi.training.loop import Log
    from codi.training.recipe import Recipe, Stage

SUMMARY = "train a model by a recipe"

_DESCRIPTION = """\
Run the stages of a recipe one after another. What is finished stays finished: after Ctrl-C, a
cluster's SIGTERM or a power cut, the same command goes on where it stopped. --dry-run shows the
plan and trains nothing.

examples:
  codi train recipe-tiny-cpu --dry-run
  codi train recipe-tiny-cpu --out runs/tiny --data ~/data
  codi train recipe-tiny-cpu --out runs/tiny --only codec-image codec-audio
  codi train recipe-tiny-cpu --out runs/try --set stage.0.steps=200 --set data.bounce.clips=500
  torchrun --nproc-per-node 8 -m codi train recipe-tiny --out runs/tiny
"""
_EPILOG = """\
DIR holds model/ (weights, for codi generate --model DIR/model), stages/, logs/ and recipe.toml.
Several processes started by torchrun, on one machine or many, share the batches; all need DIR.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `codi train`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.set_defaults(run=run)
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe, or a TOML file")
    parser.add_argument("--out", type=named_path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--only", nargs="+", action="extend", metavar="STAGE", help="do these stages only"
    )
    parser.add_argument(
        "--set",
        action="append",
        metavar="A.B=C",
        help="change a value of the recipe; stage.0.steps=10 counts stages from 0",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show stages, data, parameters and time, then stop"
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="with --dry-run: measure a few steps of every stage, on few data (minutes)",
    )
    add_running(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options of data and machine that every command that trains has."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data", metavar="DIR", help="folder of data sets (default: the variable CODI_DATA)"
    )
    group.add_argument(
        "--cache",
        type=named_path,
        metavar="DIR",
        help="folder of prepared data (default: DIR/cache)",
    )
    group = parser.add_argument_group("machine")
    add_device(group)
    group.add_argument("--threads", type=whole_number(1), metavar="N", help="CPU threads")
    group.add_argument(
        "--workers",
        type=whole_number(0),
        metavar="N",
        help="processes that prepare data and draw batches ahead (default: 0 on a CPU, which is "
        "busy enough; up to 8 beside a GPU)",
    )
    group.add_argument(
        "--graphs",
        action=argparse.BooleanOptionalAction,
        help="replay recorded evaluations, as CUDA graphs (default: on a GPU)",
    )
    group.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="compute in bfloat16, keep weights in float32 (default: on a GPU, and on a CPU that "
        "has units for it)",
    )
    group.add_argument(
        "--checkpoint-every",
        type=whole_number(1),
        default=200,
        metavar="N",
        help="steps between checkpoints (default: 200)",
    )
    group.add_argument(
        "--sample-every",
        type=whole_number(0),
        default=500,
        metavar="N",
        help="steps between samples of what is being trained; 0 for none (default: 500)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do `codi train`."""
    if arguments.out is None and not arguments.dry_run:
        raise ConfigError("codi train: give --out DIR, the folder of the run, or --dry-run")
    if arguments.estimate and not arguments.dry_run:
        raise ConfigError("--estimate belongs to --dry-run; give both or neither")
    from codi.cli.progress import Display
    from codi.training.distributed import speaks
    from codi.training.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.set or ())
    with Display(arguments.quiet or not speaks()) as display:
        if arguments.dry_run:
            _plan(recipe, arguments, display)
        else:
            folder = train(recipe, arguments, arguments.out, display, arguments.only or ())
            display.say(f"the model is in {folder}")
    return 0


def _plan(recipe: Recipe, arguments: argparse.Namespace, display: Display) -> None:
    """Print what the recipe would do."""
    from codi.cli.plan import measured, show_plan

    times: dict[str, float] = {}
    device, bfloat16 = _machine(arguments)  # which refuses one that is not there
    if arguments.estimate:
        workers, graphs = _helpers(arguments, device)
        times = measured(
            recipe, arguments.data, device, bfloat16, display, workers=workers, graphs=graphs
        )
    show_plan(recipe, arguments.data, times, arguments.only, device, bfloat16)


def _machine(arguments: argparse.Namespace) -> tuple[str, bool]:
    """Return the device, and whether to compute in bfloat16; set the threads."""
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    from codi.nn.precision import computes_bfloat16

    device = resolve_device(arguments.device)
    return device, computes_bfloat16(device) if arguments.bf16 is None else arguments.bf16


def _helpers(arguments: argparse.Namespace, device: str) -> tuple[int, bool]:
    """Return how many processes work beside the one that trains, and whether graphs are replayed.

    Raises:
        ConfigError: see `workers_of`.
    """
    graphs = arguments.graphs if arguments.graphs is not None else device != "cpu"
    return workers_of(arguments.workers, device), graphs


def train(
    recipe: Recipe,
    arguments: argparse.Namespace,
    out: Path,
    display: Display,
    only: Sequence[str] = (),
) -> Path:
    """Run a recipe in the folder `out` with the options of `add_running`; return the model's."""
    from codi.training.distributed import joined
    from codi.training.loop import Run, RunSettings

    asked, bfloat16 = _machine(arguments)
    with joined(asked) as (processes, device):
        workers, graphs = _helpers(arguments, device)
        settings = RunSettings(
            out=out,
            cache=arguments.cache,
            data=arguments.data,
            device=device,
            bfloat16=bfloat16,
            checkpoint_every=arguments.checkpoint_every,
            sample_every=arguments.sample_every,
            workers=workers,
            graphs=graphs,
        )
        shown = ShownStages(display)
        training = Run(
            recipe,
            settings,
            progress=display.count,
            log=_log(display),
            say=display.say,
            steps=shown.steps,
            report=shown.report,
            processes=processes,
        )
        training.run(only)
    return training.folder


def workers_of(asked: int | None, device: str) -> int:
    """Return how many processes work beside the one that trains.

    Raises:
        ConfigError: some are asked for on a platform that cannot share the open data with them.
    """
    import multiprocessing
    import os

    can = "fork" in multiprocessing.get_all_start_methods()
    if asked and not can:
        raise ConfigError("--workers: this platform cannot fork processes; give 0")
    if asked is not None:
        return asked
    return min(8, (os.cpu_count() or 1) - 1) if can and device != "cpu" else 0


class ShownStages:
    """The bar of a stage, with losses and norms; off a terminal, as in a file, a line a minute.

    Norms are those of all parts together: "gradient", and "moved", how far from where the stage
    found them. `logs/` has them part by part.
    """

    def __init__(self, display: Display, every_s: float = 60.0) -> None:
        self.display = display
        self.every_s = every_s
        self.losses = ""

    def steps(self, stage: Stage, steps: Iterable[int]) -> Iterator[int]:
        """Yield `steps` with a bar."""
        from codi.cli.progress import duration

        bar = self.display.begin(stage.name, stage.steps)
        began = told = time.monotonic()
        first = None
        try:
            for step in steps:
                self.display.at(bar, step)
                self.display.note(bar, self.losses)
                first = step if first is None else first
                now = time.monotonic()
                if not self.display.live and now - told >= self.every_s and step > first:
                    told = now
                    left_s = (now - began) / (step - first) * (stage.steps - step)
                    self.display.say(
                        f"{stage.name}: step {step} of {stage.steps}, {duration(left_s)} left"
                        + (f", {self.losses}" if self.losses else "")
                    )
                yield step
        finally:
            self.losses = ""
            self.display.end(bar)

    def report(self, values: dict[str, float]) -> None:
        """Keep the losses and norms to be shown with the next step."""
        shown = {k.removeprefix("loss/"): v for k, v in values.items() if k.startswith("loss/")}
        shown |= {"gradient": values["gradient"]} if "gradient" in values else {}
        moved = [value for name, value in values.items() if name.startswith("update/")]
        shown |= {"moved": math.hypot(*moved)} if moved else {}
        self.losses = " ".join(f"{name} {value:.4g}" for name, value in shown.items())


class TensorBoardLog:
    """Numbers of a stage as TensorBoard events."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record named numbers."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Record named pictures, uint8 (H, W, 3)."""
        for name, picture in pictures.items():
            self.writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        self.writer.close()


def _log(display: Display) -> Callable[[Path], Log]:
    """Return how the log of a stage is opened: TensorBoard where it is installed."""
    from importlib.util import find_spec

    from codi.training.loop import NoLog

    if find_spec("tensorboard") is not None:
        return TensorBoardLog
    display.say("note: no logs are kept; pip install tensorboard to have them")
    return lambda _folder: NoLog()
