"""The only training loop: any stage of any recipe, on one device or several, stopped at will."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from codi.build import ROLES, Model
from codi.config import ConfigError, to_toml, unknown
from codi.data.batches import Batch, Mixture, keyed_generator
from codi.data.source import data_root
from codi.data.store import Store, open_store
from codi.locking import locked
from codi.media import atomic_write_text
from codi.memory import keep_freed_memory
from codi.modalities import modality
from codi.nn.graphs import replay
from codi.progress import Progress, quiet
from codi.training.checkpoint import load_checkpoint, save_checkpoint
from codi.training.distributed import ALONE, Processes
from codi.training.drawing import draw_ahead
from codi.training.ema import MovingAverage
from codi.training.norms import all_finite, gradient_norms, part_of, update_norms
from codi.training.notices import cut_captions, differences, untrained_parts
from codi.training.optimiser import OPTIMISERS
from codi.training.parameters import (
    fresh_model,
    parts_of,
    starting_model,
    tasks_of,
    trained_by,
)
from codi.training.preview import preview, save_pictures
from codi.training.recipe import Objective, Recipe, Stage
from codi.training.stopping import between_steps
from codi.training.task import Draws, Task
from codi.weights import load_part, part_files, save_model

_BEGINNING: dict[str, Any] = {"step": 0, "spent_s": 0.0}
"""The progress of a stage without a checkpoint."""


class Log(Protocol):
    """Where numbers go while a stage runs."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record named numbers."""

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Record named pictures, uint8 (H, W, 3)."""

    def close(self) -> None:
        """Write what is still held back."""


class NoLog:
    """A log that keeps nothing."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Forget the numbers."""

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Forget the pictures."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class RunSettings:
    """How a recipe is run, as opposed to what it trains.

    Attributes:
        out: the run's folder: `model/`, `stages/`, `logs/`.
        cache: folder of prepared data and latents, shared by runs; `out/cache` by default.
        data: folder of data sets.
        bfloat16: compute in bf16 (weights and optimiser stay fp32).
        sample_every: steps between samples of the streams in training; 0 for none.
        workers: processes that prepare data and draw batches ahead; with 0 that is done in turn.
        graphs: whether diffusers replay recorded evaluations (`codi.nn.graphs`), on a GPU.
    """

    out: Path
    cache: Path | None = None
    data: str | None = None
    device: str = "cpu"
    bfloat16: bool = False
    checkpoint_every: int = 200
    log_every: int = 20
    sample_every: int = 500
    workers: int = 0
    graphs: bool = False


def fingerprint(module: nn.Module) -> str:
    """Return a short hash of a module's weights."""
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


def _marks(model: Model) -> dict[str, str]:
    """Return the fingerprint of every part ("role.name") that is present."""
    return {
        f"{role}.{name}": fingerprint(module)
        for role in ROLES
        for name, module in model.role(role).items()
    }


class Run:
    """A recipe in a folder: which stages are done, and how to do the next one."""

    def __init__(
        self,
        recipe: Recipe,
        settings: RunSettings,
        *,
        progress: Progress = quiet,
        log: Callable[[Path], Log] = lambda _folder: NoLog(),
        say: Callable[[str], None] = lambda _line: None,
        steps: Callable[[Stage, Iterable[int]], Iterable[int]] = lambda _stage, steps: steps,
        report: Callable[[dict[str, float]], None] = lambda _values: None,
        processes: Processes = ALONE,
    ) -> None:
        self.recipe = recipe
        self.settings = settings
        self.processes = processes
        self.config = recipe.model_config()
        self.progress, self.log, self.say = progress, log, say
        self.show_steps, self.report = steps, report
        self.folder = settings.out / "model"
        self._stores: dict[str, Store] = {}
        self._said: set[str] = set()

    def done(self, stage: Stage) -> bool:
        """Say whether a stage has finished."""
        return (self._stage_folder(stage) / "done.json").is_file()

    def run(self, only: Iterable[str] = ()) -> None:
        """Do all stages that are not done, or only those named.

        Raises:
            ConfigError: an unknown stage name, or another process does the stage now.
        """
        names = [stage.name for stage in self.recipe.stage]
        wanted = list(only) or names
        for name in wanted:
            if name not in names:
                raise ConfigError(unknown("stage", name, names))
        keep_freed_memory()
        torch.set_float32_matmul_precision("high")  # what is not in bf16 may be in TF32 on a GPU
        self.settings.out.mkdir(parents=True, exist_ok=True)
        if self.processes.leads:
            atomic_write_text(self.settings.out / "recipe.toml", to_toml(self.recipe))
            self._begin()
        for stage in self.recipe.stage:
            if stage.name in wanted:
                self.processes.wait()  # for the leader to write what the stage reads
                with self._reserved(stage):
                    if self.done(stage):
                        self._say_done(stage)
                    else:
                        self._train(stage)

    def _say_done(self, stage: Stage) -> None:
        """Say that a stage is done, and whether it was another one of that name."""
        folder = self._stage_folder(stage)
        before = json.loads((folder / "done.json").read_text()).get("settings")
        changed = differences(before, self._made_by(stage))
        self.say(
            f"{stage.name}: done already"
            + (f", with {changed}; remove {folder} to train it again" if changed else "")
        )

    def _made_by(self, stage: Stage) -> dict[str, Any]:
        """Return all settings of a recipe that a stage's result depends on."""
        data = {name: self.recipe.data[name] for o in stage.objectives for name in o.data}
        own = asdict(stage) | {"note": ""}
        return {"seed": self.recipe.seed, "overrides": self.recipe.overrides, "data": data} | own

    def _reserved(self, stage: Stage) -> AbstractContextManager[None]:
        """Keep other runs away from a stage; the processes of this one come in together."""
        leads = self.processes.leads
        return locked(self._stage_folder(stage) / "lock") if leads else nullcontext()

    def _begin(self) -> None:
        """Put the parts of the model that the recipe starts from into the run's folder, once."""
        if self.recipe.starts_from is None:
            return
        with locked(self.settings.out / "model.lock", self.progress):
            if not self.folder.exists():
                partial = self.folder.with_name("model.partial")
                save_model(starting_model(self.recipe.starts_from, self.recipe), partial)
                partial.replace(self.folder)

    # --- one stage ---

    def _train(self, stage: Stage) -> None:
        config = self.recipe.model_config(stage)
        if config != self.config:  # a stage of a curriculum may change sizes and rates of media
            self.config, self._stores = config, {}
        for objective in stage.objectives:
            self._open(objective)  # what is missing is said before a large model is built
        model, tasks = self._prepare(stage)
        marks = _marks(model)
        mixtures = self._mixtures(stage, tasks)
        trainable, parameters = trained_by(stage, model, tasks)
        for line in (
            *untrained_parts(stage, model, parameters, self.folder),
            *cut_captions(model, self._sources(stage, tasks), self.recipe.seed),
        ):
            self.say(f"{stage.name}: {line}")
        if self.settings.graphs:
            for network in model.role("diffusers").values():
                replay(network)
        optimiser = OPTIMISERS[stage.optimiser](
            trainable,
            list(parameters.values()),
            lr=stage.learning_rate,
            betas=stage.betas,
            weight_decay=stage.weight_decay,
        )
        average = MovingAverage(parameters, stage.ema)
        spent_s = self._take_steps(stage, model, tasks, mixtures, parameters, optimiser, average)
        if not self.processes.leads:
            return
        average.copy_to(parameters)
        for i, (task, mixture) in enumerate(zip(tasks, mixtures, strict=True)):
            task.eval()
            task.finish(self._calibration(stage, i, mixture))
        self._save(model, marks)
        made_by = self._made_by(stage)
        summary = {"steps": stage.steps, "seconds": spent_s, "settings": made_by}
        atomic_write_text(self._stage_folder(stage) / "done.json", json.dumps(summary))
        self.say(f"{stage.name}: done in {spent_s / 60:.1f} min")

    def _save(self, model: Model, marks: dict[str, str]) -> None:
        """Write the parts that are no longer as `marks` says, or that have no file yet.

        All others stay as they are: a stage that runs beside this one may have trained them.
        """
        changed = [
            part
            for part, mark in _marks(model).items()
            if mark != marks[part] or not part_files(self.folder, part)
        ]
        chosen = Model(model.config, [])
        for part in changed:
            role, name = part.split(".", 1)
            chosen.role(role)[name] = model.role(role)[name]
        save_model(chosen, self.folder, config=self.recipe.model_config())

    def _take_steps(
        self,
        stage: Stage,
        model: Model,
        tasks: list[Task],
        mixtures: list[Mixture],
        parameters: dict[str, nn.Parameter],
        optimiser: torch.optim.Optimizer,
        average: MovingAverage,
    ) -> float:
        """Take the steps that are left; return the seconds that all of the stage's steps took."""
        settings = self.settings
        checkpoint = self._stage_folder(stage) / "checkpoint"
        initial = {name: p.detach().clone() for name, p in parameters.items()}  # of the stage
        progress = self._resume(stage, checkpoint, parameters, optimiser, average)
        first, spent_s = progress["step"], progress["spent_s"]
        self.say(
            f"{stage.name}: {sum(p.numel() for p in parameters.values()):,} parameters, "
            + (f"from step {first} of {stage.steps}" if first else f"{stage.steps} steps")
        )
        log = self.log(settings.out / "logs" / stage.name) if self.processes.leads else NoLog()
        began = time.monotonic()
        # Steps whose update is complete; whether the parameters are those after a step.
        done, whole = first, True

        def save() -> None:
            if not self.processes.leads:
                return
            if not all_finite(parameters):  # it may be long since the losses were looked at
                self.say(
                    f"{stage.name}: step {done} is not saved: what is trained is no longer finite; "
                    "lower learning_rate and go on from the checkpoint before"
                )
                return
            state = {
                "step": done,
                "spent_s": spent_s + time.monotonic() - began,
                "settings": self._made_by(stage),
            }
            save_checkpoint(checkpoint, parameters, optimiser, average, state)

        try:
            with between_steps() as interrupted:
                drawn = draw_ahead(
                    self.recipe.seed, stage, mixtures, first, settings.workers, self.processes
                )
                for step in self.show_steps(stage, range(first, stage.steps)):
                    log_now = step % settings.log_every == 0 or step + 1 == stage.steps
                    # Reading numbers makes a GPU wait, so it is not done at every step.
                    read = log_now or (step + 1) % settings.checkpoint_every == 0
                    which, batches = next(drawn)
                    values = self._gradients(stage, step, tasks[which], batches, parameters, read)
                    whole = False
                    self._update(optimiser, learning_rate(stage, step))
                    average.update(parameters, step)
                    done, whole = step + 1, True
                    optimiser.zero_grad(set_to_none=True)
                    if log_now:
                        values |= update_norms(parameters, initial)
                        log.scalars(step, values)
                        self.report(values)
                    if done % settings.checkpoint_every == 0:
                        self.processes.check_equal(parameters)
                        save()
                    if self._samples_now(done):
                        with average.applied(parameters):  # what the stage's result looks like
                            self._show_samples(stage, done, model, tasks, mixtures, log)
                    if self.processes.any(interrupted()):
                        raise KeyboardInterrupt
            save()
        except KeyboardInterrupt:
            if whole:
                save()
            self.say(f"{stage.name}: stopped after step {done}; run the same command to go on")
            raise
        finally:
            log.close()
        self._refuse_standstill(stage, parameters, initial, first)
        return spent_s + time.monotonic() - began

    def _resume(
        self,
        stage: Stage,
        checkpoint: Path,
        parameters: dict[str, nn.Parameter],
        optimiser: torch.optim.Optimizer,
        average: MovingAverage,
    ) -> dict[str, Any]:
        """Restore a checkpoint, say how its settings differ, and return its progress.

        What it holds of another kind of optimiser is forgotten.
        """
        progress = load_checkpoint(checkpoint, parameters, optimiser, average) or _BEGINNING
        before = progress.get("settings")
        if changed := differences(before, self._made_by(stage)):
            self.say(f"{stage.name}: goes on from a checkpoint with {changed}")
        if (before or {}).get("optimiser", stage.optimiser) != stage.optimiser:
            optimiser.state.clear()
            self.say(f"{stage.name}: its optimiser begins anew")
        return progress

    def _gradients(
        self,
        stage: Stage,
        step: int,
        task: Task,
        batches: list[Batch],
        parameters: dict[str, nn.Parameter],
        read: bool,
    ) -> dict[str, float]:
        """Add up and clip the gradients of a step; return the numbers to log where they are read.

        Raises:
            ConfigError: nothing that is trained is in the losses, or a number is not finite.
        """
        values: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            key = (stage.name, step, self.processes.part(index))
            generator = torch.Generator().manual_seed(
                int(keyed_generator(self.recipe.seed, *key, "draws").integers(2**62))
            )
            with self._autocast():
                losses = task(_to_device(batch, self.settings.device), Draws(generator))
            total = torch.stack([v.float() for v in losses.values()]).sum()
            if not total.requires_grad:
                raise ConfigError(
                    f"stage {stage.name!r}: the losses {', '.join(losses)} do not depend on what "
                    f"is trained, {', '.join(sorted({part_of(name) for name in parameters}))}"
                )
            (total / stage.accumulate).backward()
            values |= {f"loss/{name}": v.detach() for name, v in losses.items()}
        self.processes.average_gradients(parameters)
        norms = gradient_norms(parameters) if read else {}
        values["gradient"] = nn.utils.clip_grad_norm_(parameters.values(), stage.clip)
        if not read:
            return {}
        values = self.processes.average(values)
        found = norms | {name: float(value) for name, value in values.items()}
        wrong = {name: value for name, value in found.items() if not math.isfinite(value)}
        if wrong:
            raise ConfigError(
                f"stage {stage.name!r}: {', '.join(wrong)} not finite by step {step}; "
                "lower learning_rate and resume from the last checkpoint"
            )
        return found | {"rate": learning_rate(stage, step)}

    def _update(self, optimiser: torch.optim.Optimizer, rate: float) -> None:
        for group in optimiser.param_groups:
            group["lr"] = rate
        with self._autocast():  # for Muon's own products
            optimiser.step()

    def _samples_now(self, done: int) -> bool:
        every = self.settings.sample_every
        return self.processes.leads and every > 0 and done % every == 0

    def _show_samples(
        self,
        stage: Stage,
        done: int,
        model: Model,
        tasks: list[Task],
        mixtures: list[Mixture],
        log: Log,
    ) -> None:
        """Log what the tasks make of a few fixed items, and their streams of a few captions."""
        for i, (task, mixture) in enumerate(zip(tasks, mixtures, strict=True)):
            batch = mixture.batch(4, stage.name, i, "samples")
            pictures = task.pictures(_to_device(batch, self.settings.device))
            if task.streams:
                try:
                    pictures |= preview(model, self.folder, task.streams, batch)
                except ConfigError as error:  # is no reason to stop
                    self._say_once(f"{stage.name}: no samples can be made: {error}")
            if pictures:
                save_pictures(pictures, self._stage_folder(stage) / "samples", done)
                log.pictures(done, pictures)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.say(line)

    def _autocast(self) -> torch.autocast:
        device = torch.device(self.settings.device).type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.settings.bfloat16)

    # --- model and data of a stage ---

    def _prepare(self, stage: Stage) -> tuple[Model, list[Task]]:
        """Return the model with the parts the stage uses, and its tasks."""
        parts = parts_of(stage, self.config, self.recipe.name)
        model = fresh_model(self.config, parts, self.recipe.seed)
        for part in parts:
            role, name = part.split(".", 1)
            source = part
            if not part_files(self.folder, part) and part in stage.starts_from:
                source = stage.starts_from[part]
                if not part_files(self.folder, source):
                    raise ConfigError(
                        f"stage {stage.name!r}: {part} starts from {source}, which has no weights "
                        f"in {self.folder}; train it in a stage before"
                    )
            if part_files(self.folder, source):
                load_part(model.role(role)[name], self.folder, source)
        model.to(self.settings.device)
        tasks = tasks_of(stage, model, self.recipe.name)
        return model, [task.to(self.settings.device) for task in tasks]

    def store(self, name: str) -> Store | None:
        """Return the prepared data of a source, or None for an optional one that is absent."""
        if name not in self._stores:
            root = data_root(self.settings.data)
            source = self.recipe.sources()[name].build(self.config, root)
            if source is None:
                self._say_once(f"data source {name!r} is not there; training goes on without it")
                return None
            cache = self.settings.cache or self.settings.out / "cache"
            workers = max(self.settings.workers, 1)
            self._stores[name] = open_store(source, cache, self.progress, workers)
        return self._stores[name]

    def _mixtures(self, stage: Stage, tasks: list[Task]) -> list[Mixture]:
        """Return the batches of each objective, with latents cached where they are wanted."""
        mixtures = []
        for objective, task in zip(stage.objectives, tasks, strict=True):
            stores = self._open(objective)
            codecs: dict[str, str] = {}
            for store in stores.values():
                for name in task.wanted.latents:
                    whole = modality(name).part_of
                    container = name if name in store.arrays or whole is None else whole
                    codecs[container] = self._cache_latents(store, container)
            mixtures.append(
                Mixture(self.config, stores, objective.data, task.wanted, codecs, self.recipe.seed)
            )
        return mixtures

    def _sources(self, stage: Stage, tasks: list[Task]) -> dict[str, tuple[Store, set[str]]]:
        """Return the stores of a stage, and the modalities whose captions are read from each."""
        found: dict[str, tuple[Store, set[str]]] = {}
        for objective, task in zip(stage.objectives, tasks, strict=True):
            for name, store in self._open(objective).items():
                found.setdefault(name, (store, set()))[1].update(task.wanted.captions)
        return found

    def _open(self, objective: Objective) -> dict[str, Store]:
        found = {name: self.store(name) for name in objective.data}
        return {name: store for name, store in found.items() if store is not None}

    def _cache_latents(self, store: Store, name: str) -> str:
        """Encode a store's media once with the trained codec; return the codec's fingerprint."""
        [part] = self.config.parts(("codecs",), [name])
        model = Model(self.config, [part])
        load_part(model.codec(name), self.folder, part)
        codec = model.codec(name).to(self.settings.device).eval()
        mark = fingerprint(codec)
        media = self.config.media(name)

        @torch.no_grad()
        def encode(arrays: np.ndarray) -> np.ndarray:
            with self._autocast():
                z = codec.encode(media.to_tensor(arrays).to(self.settings.device))
            return z.float().cpu().numpy()

        store.cache_latents(name, mark, encode, self.progress)
        return mark

    def _calibration(
        self, stage: Stage, index: int, mixture: Mixture
    ) -> Callable[[], Iterator[Batch]]:
        def batches() -> Iterator[Batch]:
            for i in range(16):
                batch = mixture.batch(
                    min(stage.size(stage.objectives[index]), 64),
                    stage.name,
                    index,
                    "calibration",
                    i,
                )
                yield _to_device(batch, self.settings.device)

        return batches

    def _refuse_standstill(
        self,
        stage: Stage,
        parameters: dict[str, nn.Parameter],
        initial: dict[str, Tensor],
        first: int,
    ) -> None:
        """Raise when a part that should have been trained has not moved."""
        if first == stage.steps:
            return
        still = [n for n, v in update_norms(parameters, initial).items() if v == 0.0]
        if still:
            raise ConfigError(
                f"stage {stage.name!r}: nothing moved in {', '.join(still)}; "
                "these parameters are trained but get no gradient"
            )

    def _stage_folder(self, stage: Stage) -> Path:
        return self.settings.out / "stages" / stage.name


def learning_rate(stage: Stage, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then the stage's decay.

    Raises:
        ConfigError: an unknown decay.
    """
    if stage.decay not in _DECAYS:
        raise ConfigError(unknown("decay", stage.decay, _DECAYS))
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    share = (step - stage.warmup) / max(stage.steps - stage.warmup, 1)
    return stage.learning_rate * _DECAYS[stage.decay](share)


_DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda _share: 1.0,
    "cosine": lambda share: 0.1 + 0.45 * (1.0 + math.cos(math.pi * share)),
}


def _to_device(batch: Batch, device: str) -> Batch:
    if device != "cpu":
        batch.latents = {name: z.to(device) for name, z in batch.latents.items()}
        batch.media = {
            name: x.to(device) if isinstance(x, Tensor) else x for name, x in batch.media.items()
        }
    return batch
