"""`codi generate`: conditions in, files out."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codi.cli.options import add_device, named_path, whole_number
from codi.cli.request import Prompt, Request, Source, is_file, read_request, source_type
from codi.cli.sampling import add_sampling
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
same files. A folder that holds an earlier run stays as it is until the new samples are finished;
then these replace all of that run at once, but nothing that this one read, and no other file.
Ctrl-C and SIGTERM leave the samples that are finished, in place of an earlier run too, if there are
any.
"""


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
    parser.set_defaults(run=run)
    entries = [modality(name) for name in names()]
    _add_conditions(parser, entries)
    _add_outputs(parser, entries)
    group = add_sampling(parser)
    group.add_argument(
        "--batch",
        type=whole_number(1),
        default=8,
        metavar="N",
        help="samples made at once, and written when all of them are finished; fewer need less "
        "memory (default: 8)",
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
        help="of the weights: fp32, bf16, fp16; in the type of their file they stay there, mapped; "
        "auto is fp32 on a CPU, else bf16 (default: auto)",
    )
    group.add_argument(
        "--compute-dtype",
        default="auto",
        metavar="T",
        help="what weights are computed in, one layer at a time where it is another type; auto is "
        "fp32 on a CPU that is slow at bf16, which is tried (default: auto)",
    )
    group.add_argument(
        "--offload",
        action="store_true",
        help="drop every part when it has done its work: least memory, and each batch loads again",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="translate the networks first (torch.compile): minutes once, then faster steps",
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
            type=source_type(entry),
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
        "divided by their sum (default: all equal); what is kept is one more, with their mean",
    )
    for entry in entries:
        group.add_argument(
            f"--negative-{entry.name}",
            action=_Append,
            dest="negative",
            const=entry.name,
            type=source_type(entry),
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
        "and it is a condition too; for text a file, or else the words themselves; may be given "
        "for several modalities",
    )
    group.add_argument(
        "--out",
        type=named_path,
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


# Request -> files ---------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    """Do `codi generate`."""
    request = read_request(arguments)
    from codi.cli.outputs import OutputFolder
    from codi.cli.progress import Display, print_line
    from codi.diffusion import SAMPLERS
    from codi.locking import ended_by_sigterm

    if arguments.sampler is not None and arguments.sampler not in SAMPLERS:
        raise ConfigError(unknown("sampler", arguments.sampler, SAMPLERS))
    began_s = time.perf_counter()
    from codi.pipeline import load

    pipeline = load(
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        compute_dtype=arguments.compute_dtype,
        offload=arguments.offload,
        compile=arguments.compile,
    )
    with (
        ended_by_sigterm(),
        OutputFolder(arguments.out) as folder,
        Display(arguments.quiet) as display,
    ):
        work = _Work(request, arguments, pipeline, folder, began_s)
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
        self.taken_s = 0.0
        self.samples: list[dict[str, Any]] = []
        self.words: list[str] = []
        self.notes: list[str] = []
        self.settings: dict[str, Any] = {}
        self.complete = False

    def do(self, display: Display) -> None:
        """Make all samples; whatever stops it, the finished ones and a manifest of them remain."""
        try:
            self._make(display)
            self.complete = True
            self._publish(display)
        except BaseException as error:
            self._close_early(display, isinstance(error, KeyboardInterrupt))
            raise

    def _make(self, display: Display) -> None:
        from codi.generation import SamplingSettings

        request, size = self.request, self.arguments.batch
        self._reserve()
        prompts, negative, keep = self._load(display)
        bar = display.begin(" + ".join(request.to), None)
        given = self.arguments
        encoded = self.pipeline.encoded(
            prompts,
            request.to,
            negative=negative,
            keep=keep,
            settings=SamplingSettings(
                given.sampler,
                given.steps,
                request.guidance,
                given.eta,
                given.spacing,
                request.guidance_interval,
                given.reuse,
            ),
        )
        self._note(encoded.notes, display)
        self.settings = encoded.described
        batches = range(0, len(request.seeds), size)
        for index, first in enumerate(batches):

            def report(step: int, steps: int, index: int = index) -> None:
                display.at(bar, index * steps + step, steps * len(batches))

            seeds = request.seeds[first : first + size]
            made = self.pipeline.generated(encoded, seeds, callback=report, batch=size)
            self._write(first, made)
            if not self.folder.holds_earlier:  # what an earlier run made gives way once, at the end
                self._publish(display)

    def _reserve(self) -> None:
        """Make sure that no file is replaced that this run reads."""
        request = self.request
        given = [
            *(p.source for p in (*request.conditions, *request.negative)),
            *request.keep.values(),
        ]
        reads = [source for source in given if isinstance(source, Path)]
        self.folder.reserve(range(len(request.seeds)), [*request.to, *request.keep], reads)

    def _load(self, display: Display) -> tuple[list[Condition], list[Condition], dict[str, Any]]:
        """Return conditions, negative ones and kept streams, read once for all batches."""
        from codi.pipeline import Condition

        def loaded(name: str, source: Source) -> Any:
            item, notes = self.pipeline.config.media(name).load(source)
            self._note(notes, display)
            return item

        request = self.request
        for option, given in (("--", request.conditions), ("--negative-", request.negative)):
            for prompt in given:
                if isinstance(prompt.source, str) and is_file(prompt.source):
                    contents = f'"$(cat {shlex.quote(prompt.source)})"'
                    mend = f"{option}{prompt.modality} {contents} gives what the file says"
                    self._note([f"{prompt.source}: taken as words; {mend}"], display)
        weighed = zip(request.conditions, request.weights, strict=True)
        prompts = [Condition(p.modality, loaded(p.modality, p.source), w) for p, w in weighed]
        keep = {name: loaded(name, source) for name, source in request.keep.items()}
        negative = [Condition(p.modality, loaded(p.modality, p.source)) for p in request.negative]
        return prompts, negative, keep

    def _note(self, notes: Sequence[str], display: Display) -> None:
        """Say and keep what has not been said."""
        for note in notes:
            if note not in self.notes:
                self.notes.append(note)
                display.say(f"note: {note}")

    def _write(self, first: int, made: Generation) -> None:
        """Write the samples of one batch."""
        media = {name: self.pipeline.config.media(name) for name in made}
        for offset, seed in enumerate(self.request.seeds[first : first + self.arguments.batch]):
            number = first + offset
            items = {name: objects[offset] for name, objects in made.items()}
            files = self.folder.write_sample(number, items, media)
            self.samples.append({"number": number, "seed": seed, "files": files})
            self.words += [
                f"{files[name]}: {_printable(items[name])}"
                for name in self.request.to
                if modality(name).is_caption
            ]

    def _publish(self, display: Display) -> None:
        """Bring all samples that are finished to their place, with their manifest."""
        self.taken_s = time.perf_counter() - self.began_s
        if removed := self.folder.publish(self.manifest()):
            display.say(f"removed what an earlier run made: {_listed(removed)}")

    def _close_early(self, display: Display, stopped: bool) -> None:
        """Leave the finished samples with their manifest, or the folder as it was."""
        done, wanted, folder = len(self.samples), len(self.request.seeds), self.folder.path
        changes = done or (stopped and not self.folder.holds_earlier)
        if changes:
            self._publish(display)
        if not self.complete and (done or stopped):
            left = f"in {folder}" if changes else f"{folder} is as it was"
            display.say(f"incomplete: {done} of {wanted} samples are finished, {left}")

    def manifest(self) -> dict[str, Any]:
        """Return what was made of what, and how."""
        from codi import __version__

        request = self.request
        parts = [(prompt.modality, _told(prompt.source)) for prompt in request.conditions]
        parts += [(name, _told(source)) for name, source in request.keep.items()]
        weights = [*request.weights, *[1.0] * len(request.keep)]
        return {
            "codi": __version__,
            "complete": self.complete,
            "to": list(request.to),
            "conditions": [
                {"modality": name, "source": source, "weight": round(weight / sum(weights), 6)}
                for (name, source), weight in zip(parts, weights, strict=True)
            ],
            "negative": [
                {"modality": p.modality, "source": _told(p.source)} for p in request.negative
            ],
            "keep": {name: _told(source) for name, source in request.keep.items()},
            "seeds": list(request.seeds),
            "settings": self.settings,
            "notes": self.notes,
            "samples": self.samples,
            "left_over": self.folder.left_over,
            "timing": {
                "seconds": round(self.taken_s, 3),
                "seconds_per_sample": round(self.taken_s / max(len(self.samples), 1), 3),
            },
        }

    def summary(self) -> list[str]:
        """Return the lines that end a run: what was written in words, then the files."""
        files = [file for sample in self.samples for file in sample["files"].values()]
        return [*self.words, f"{self.folder.path}: {_listed(files)}, manifest.json"]


def _listed(files: Sequence[str]) -> str:
    """Return names in one line, the middle of a long list left out."""
    return ", ".join(files if len(files) <= 8 else [*files[:3], "...", files[-1]])


def _printable(text: str) -> str:
    """Return a text as one line that cannot steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _told(source: Source) -> str:
    """Return a source as text; a file's name may hold bytes that are no letters."""
    return str(source).encode("utf-8", "backslashreplace").decode("utf-8")
