"""`codi generate`: conditions in, files out."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codi.cli.options import add_device, whole_number
from codi.config import ConfigError, unknown
from codi.modalities.base import Modality, modality, names

if TYPE_CHECKING:
    from codi.cli.outputs import OutputFolder
    from codi.cli.progress import Display
    from codi.pipeline import Condition, Generation, Pipeline

SUMMARY = "make text, images, video and sound from any of them"

_DESCRIPTION = """\
Make any set of modalities from any mix of conditions. What is asked for together is made together:
the streams listen to each other at every step, so that sound and picture agree.

examples:
  codi generate --text "a red ball bounces" --to image
  codi generate --text "a red ball bounces" --to video audio --num 4 --seed 10
  codi generate --image ball.png --audio knock.wav --weights 0.7 0.3 --to image text
  codi generate --keep video=silent.mp4 --to audio          a soundtrack for a silent video
  codi generate --text "a drop" --negative-text "dark" --guidance image=4 --to image
  codi generate --unconditional --to image video audio text
"""
_EPILOG = """\
Every sample has a number: 000-image.png, 000-video.mp4 (with its sound, where there is one),
000-audio.wav, 000-text.txt, and manifest.json tells how they were made. The same command makes the
same files. A folder that holds an earlier run is replaced sample by sample, as each is finished.
"""

Source = str | Path


@dataclass(frozen=True)
class Prompt:
    """A condition as it stands on the command line."""

    modality: str
    source: Source


@dataclass(frozen=True)
class Request:
    """What `codi generate` was asked for, free of contradictions.

    Attributes:
        weights: one for each condition, of mean 1, so that a kept stream, whose weight is 1, counts
            as much as an average condition.
    """

    conditions: tuple[Prompt, ...]
    weights: tuple[float, ...]
    negative: tuple[Prompt, ...]
    keep: dict[str, Source]
    to: tuple[str, ...]
    seeds: tuple[int, ...]
    guidance: float | dict[str, float] | None


class _Append(argparse.Action):
    """Append to a list that several options share, so that the order among them is kept."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        del parser, option_string
        earlier = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*earlier, Prompt(str(self.const), values)])


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `codi generate`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    entries = [modality(name) for name in names()]
    _add_conditions(parser, entries)
    _add_outputs(parser, entries)
    group = parser.add_argument_group("sampling (the model's own settings by default)")
    group.add_argument(
        "--steps", type=whole_number(1), metavar="N", help="denoising steps; more is slower, finer"
    )
    group.add_argument("--sampler", metavar="NAME", help="ddim, dpmpp_2m, euler, heun, ddpm")
    group.add_argument(
        "--guidance",
        nargs="+",
        metavar="G",
        help="how strongly the conditions are followed: one number, or image=3 audio=2.5",
    )
    group.add_argument(
        "--batch",
        type=whole_number(1),
        default=8,
        metavar="N",
        help="samples made at once; fewer need less memory (default: 8)",
    )
    group = parser.add_argument_group("model and machine")
    group.add_argument(
        "--model",
        default="tiny",
        metavar="M",
        help="a shipped model, or the folder of one (default: tiny)",
    )
    add_device(group)
    group.add_argument(
        "--dtype",
        default="auto",
        metavar="T",
        help="float32, bfloat16 or float16; auto is float32 on a CPU, else bfloat16 (default: auto)",
    )
    group.add_argument("--json", action="store_true", help="print the manifest, alone, on stdout")
    group.add_argument("--quiet", action="store_true", help="no progress, no notes, no last line")


def _add_conditions(parser: argparse.ArgumentParser, entries: Sequence[Modality]) -> None:
    group = parser.add_argument_group("conditions (each may be given several times, in any mix)")
    for entry in entries:
        group.add_argument(
            f"--{entry.name}",
            action=_Append,
            dest="conditions",
            const=entry.name,
            type=_reader(entry),
            metavar=_metavar(entry),
            help=f"{entry.summary} to make something from",
        )
    group.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        type=float,
        metavar="W",
        help="one number for each condition, in the order in which they are given; they are "
        "divided by their sum (default: all equal)",
    )
    for entry in entries:
        group.add_argument(
            f"--negative-{entry.name}",
            action=_Append,
            dest="negative",
            const=entry.name,
            type=_reader(entry),
            metavar=_metavar(entry),
            help=f"{entry.summary} to steer away from",
        )
    group.add_argument(
        "--unconditional", action="store_true", help="no condition at all: whatever comes"
    )


def _add_outputs(parser: argparse.ArgumentParser, entries: Sequence[Modality]) -> None:
    group = parser.add_argument_group("outputs")
    group.add_argument(
        "--to",
        nargs="+",
        action="extend",
        metavar="M",
        help=f"what to make, together: any of {', '.join(e.name for e in entries)}",
    )
    group.add_argument(
        "--keep",
        action="append",
        metavar="M=FILE",
        help="a stream that is given, such as video=silent.mp4: the others are made to fit it, "
        "and it is a condition too; may be given for several modalities",
    )
    group.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="folder of the samples (default: out)",
    )
    group.add_argument(
        "--num", type=whole_number(1), default=1, metavar="N", help="samples (default: 1)"
    )
    group.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="S",
        help="seed of the first sample; sample i takes S + i (default: 0)",
    )


def _metavar(entry: Modality) -> str:
    return "TEXT" if entry.is_caption else "FILE"


def _reader(entry: Modality) -> type[str] | type[Path]:
    """Return how a source is read: what is written is given literally, all else is a file."""
    return str if entry.is_caption else Path


# Options -> request -------------------------------------------------------------------------------


def read_request(arguments: argparse.Namespace) -> Request:
    """Check the options against each other.

    Raises:
        ConfigError: a contradiction, an unknown modality, or weights that do not fit.
    """
    conditions = tuple(arguments.conditions or ())
    keep = _read_keep(arguments.keep or ())
    to = _read_outputs(arguments.to or (), keep)
    if arguments.unconditional and (conditions or keep):
        given = conditions[0].modality if conditions else f"keep {next(iter(keep))}"
        raise ConfigError(f"--unconditional contradicts --{given}; leave one of them out")
    if not (conditions or keep or arguments.unconditional):
        options = ", ".join(f"--{name}" for name in names())
        raise ConfigError(f"no condition: give {options} or --keep, or ask for --unconditional")
    return Request(
        conditions,
        _read_weights(arguments.weights, conditions),
        tuple(arguments.negative or ()),
        keep,
        to,
        tuple(range(arguments.seed, arguments.seed + arguments.num)),
        _read_guidance(arguments.guidance, to),
    )


def _read_outputs(given: Sequence[str], keep: Mapping[str, Source]) -> tuple[str, ...]:
    if not given:
        raise ConfigError(f"nothing to make: say --to, with any of {', '.join(names())}")
    to = tuple(dict.fromkeys(modality(name).name for name in given))
    for name in to:
        if name in keep:
            raise ConfigError(
                f"{name} is both in --to and in --keep; a kept stream is given and the others are "
                f"made to fit it, so leave {name} out of one of them"
            )
    return to


def _read_keep(given: Sequence[str]) -> dict[str, Source]:
    keep: dict[str, Source] = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals or not source:
            raise ConfigError(f"--keep {text}: expected MODALITY=FILE, such as video=silent.mp4")
        if name in keep:
            raise ConfigError(f"--keep {name}= is given twice; a stream is kept once")
        keep[name] = _reader(modality(name))(source)
    return keep


def _read_weights(
    given: Sequence[float] | None, conditions: Sequence[Prompt]
) -> tuple[float, ...]:
    if given is None:
        return (1.0,) * len(conditions)
    shown = " ".join(f"{weight:g}" for weight in given)
    order = ", ".join(condition.modality for condition in conditions)
    if not conditions:
        raise ConfigError("--weights without conditions; give --text, --image ... or leave it out")
    if len(given) != len(conditions):
        raise ConfigError(
            f"--weights {shown}: expected {len(conditions)} number(s), one for each condition in "
            f"the order given ({order}), got {len(given)}"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in given):
        raise ConfigError(f"--weights {shown}: expected numbers that are not negative")
    total = sum(given)
    if total == 0:
        raise ConfigError(f"--weights {shown}: expected at least one number above 0")
    return tuple(weight / total * len(given) for weight in given)


def _read_guidance(
    given: Sequence[str] | None, to: Sequence[str]
) -> float | dict[str, float] | None:
    if given is None:
        return None
    wanted = "expected one number, or numbers by modality such as image=3 audio=2.5"
    refusal = ConfigError(f"--guidance {' '.join(given)}: {wanted}")
    if len(given) == 1 and "=" not in given[0]:
        return _finite(given[0], refusal)
    scales: dict[str, float] = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not equals or name in scales:
            raise refusal
        if name not in to:
            raise ConfigError("--guidance: " + unknown("modality to guide:", name, to))
        scales[name] = _finite(number, refusal)
    return scales


def _finite(text: str, refusal: ConfigError) -> float:
    try:
        value = float(text)
    except ValueError:
        raise refusal from None
    if not math.isfinite(value):
        raise refusal
    return value


# Request -> files ---------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    """Do `codi generate`."""
    request = read_request(arguments)
    from codi.cli.outputs import OutputFolder
    from codi.cli.progress import Display, print_line
    from codi.diffusion import SAMPLERS

    if arguments.sampler is not None and arguments.sampler not in SAMPLERS:
        raise ConfigError(unknown("sampler", arguments.sampler, SAMPLERS))
    began_s = time.perf_counter()
    from codi.pipeline import load

    pipeline = load(arguments.model, device=arguments.device, dtype=arguments.dtype)
    folder = OutputFolder(arguments.out)
    work = _Work(request, arguments, pipeline, folder, began_s)
    with Display(arguments.quiet) as display:
        work.do(display)
    if arguments.json:
        import json

        print_line(json.dumps(work.manifest(), indent=2, ensure_ascii=False))
    elif not arguments.quiet:
        for line in work.summary():
            print_line(line)
    return 0


class _Work:
    """One request on its way: batches of samples, and the manifest of those that are finished."""

    def __init__(
        self,
        request: Request,
        arguments: argparse.Namespace,
        pipeline: Pipeline,
        folder: OutputFolder,
        began_s: float,
    ) -> None:
        self.request, self.arguments = request, arguments
        self.pipeline, self.folder = pipeline, folder
        self.began_s = began_s
        self.samples: list[dict[str, Any]] = []
        self.words: list[str] = []
        self.notes: list[str] = []
        self.settings: dict[str, Any] = {}
        self.complete = False

    def do(self, display: Display) -> None:
        """Make all samples; whatever stops it, the finished ones and a manifest of them remain."""
        try:
            self._make(display)
        except BaseException as error:
            self._close_early(display, isinstance(error, KeyboardInterrupt))
            raise
        self.folder.remove_left_over()
        self.complete = True
        self.folder.write_manifest(self.manifest())

    def _make(self, display: Display) -> None:
        request, size = self.request, self.arguments.batch
        prompts = self._conditions()
        bar = display.begin(" + ".join(request.to), None)
        batches = range(0, len(request.seeds), size)
        for index, first in enumerate(batches):

            def report(step: int, steps: int, index: int = index) -> None:
                display.at(bar, index * steps + step, steps * len(batches))

            made = self.pipeline.generate(
                prompts,
                request.to,
                seeds=request.seeds[first : first + size],
                negative=[(prompt.modality, prompt.source) for prompt in request.negative],
                keep=request.keep,
                steps=self.arguments.steps,
                sampler=self.arguments.sampler,
                guidance=request.guidance,
                callback=report,
                batch=size,
            )
            for note in made.notes:
                if note not in self.notes:
                    self.notes.append(note)
                    display.say(f"note: {note}")
            self.settings = made.settings
            self._write(first, made)

    def _conditions(self) -> list[Condition]:
        from codi.pipeline import Condition

        pairs = zip(self.request.conditions, self.request.weights, strict=True)
        return [Condition(prompt.modality, prompt.source, weight) for prompt, weight in pairs]

    def _write(self, first: int, made: Generation) -> None:
        """Write the samples of one batch, and the manifest of all that are finished."""
        media = {name: self.pipeline.config.media(name) for name in made}
        for offset, seed in enumerate(self.request.seeds[first : first + self.arguments.batch]):
            number = first + offset
            items = {name: objects[offset] for name, objects in made.items()}
            files = self.folder.write_sample(number, items, media)
            self.samples.append({"number": number, "seed": seed, "files": files})
            self.words += [
                f"{files[name]}: {items[name]}" for name in self.request.to if _is_written(name)
            ]
        self.folder.write_manifest(self.manifest())

    def _close_early(self, display: Display, stopped: bool) -> None:
        """Leave the finished samples with their manifest, or the folder as it was."""
        done, wanted = len(self.samples), len(self.request.seeds)
        if done:
            self.folder.write_manifest(self.manifest())
        elif stopped and not self.folder.earlier:
            self.folder.write_manifest(self.manifest())
        else:
            self.folder.forsake()
        if done or stopped:
            display.say(
                f"incomplete: {done} of {wanted} samples are finished, in {self.folder.path}"
            )

    def manifest(self) -> dict[str, Any]:
        """Return what was made of what, and how."""
        from codi import __version__

        request = self.request
        parts = [(prompt.modality, str(prompt.source)) for prompt in request.conditions]
        parts += [(name, str(source)) for name, source in request.keep.items()]
        weights = [*request.weights, *[1.0] * len(request.keep)]
        taken_s = time.perf_counter() - self.began_s
        return {
            "codi": __version__,
            "complete": self.complete,
            "to": list(request.to),
            "conditions": [
                {"modality": name, "source": source, "weight": round(weight / sum(weights), 6)}
                for (name, source), weight in zip(parts, weights, strict=True)
            ],
            "negative": [
                {"modality": p.modality, "source": str(p.source)} for p in request.negative
            ],
            "keep": {name: str(source) for name, source in request.keep.items()},
            "seeds": list(request.seeds),
            "settings": self.settings,
            "notes": self.notes,
            "samples": self.samples,
            "left_over": self.folder.left_over,
            "timing": {
                "seconds": round(taken_s, 3),
                "seconds_per_sample": round(taken_s / max(len(self.samples), 1), 3),
            },
        }

    def summary(self) -> list[str]:
        """Return the lines that end a run: what was written in words, then the files."""
        files = [file for sample in self.samples for file in sample["files"].values()]
        shown = files if len(files) <= 8 else [*files[:3], "...", files[-1]]
        return [*self.words, f"{self.folder.path}: {', '.join([*shown, 'manifest.json'])}"]


def _is_written(name: str) -> bool:
    return modality(name).is_caption


__all__ = ["SUMMARY", "Prompt", "Request", "configure", "read_request", "run"]
