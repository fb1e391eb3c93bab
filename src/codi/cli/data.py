"""`codi data`: look at the synthetic world, write it to files, train the tokenizer and judges."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codi.cli.options import Formatter, named_path, whole_number
from codi.config import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from codi.cli.progress import Display
    from codi.worlds.bounce import Scene

SUMMARY = "look at and write training data"

_DESCRIPTION = """\
Look at the synthetic world that the default model is trained on, write clips of it to files or to
shards for training, or train what ships beside the model: the default tokenizer, and the judges
that read real media for `codi evaluate --suite real`.

examples:
  codi data bounce --sheet sheet.png
  codi data bounce --out clips --count 10
  codi data bounce --out shards --count 2000 --shards
  codi data tokenizer --out tokenizer.json
  codi data tokenizer --extend tokenizer-small.json --shards "mine-*.tar" --data DIR \
      --vocabulary 1400 --out longer.json
  codi data judges --data DIR --out src/codi/weights/judges
"""
_CLIPS_A_SHARD = 500
_CAPTIONS = 3
"""Captions of each modality that a clip in a shard has."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the kinds of data and their options."""
    parser.description = _DESCRIPTION
    kinds = parser.add_subparsers(title="what", metavar="KIND", required=True)
    bounce = kinds.add_parser(
        "bounce",
        formatter_class=Formatter,
        help="the world of one bouncing object",
        description="Render clips of the bounce world: one object falls and bounces, seen, heard "
        "and told. The same seeds give the same clips.",
    )
    bounce.add_argument(
        "--sheet",
        type=named_path,
        metavar="FILE.png",
        help="frames and waveforms, impacts marked in red",
    )
    bounce.add_argument(
        "--out",
        type=named_path,
        metavar="DIR",
        help="folder for mp4, wav and txt files, or for shards",
    )
    bounce.add_argument(
        "--shards",
        action="store_true",
        help="with --out: WebDataset tar files, as recipes read them",
    )
    bounce.add_argument(
        "--count", type=whole_number(1), default=6, metavar="N", help="clips (default: 6)"
    )
    bounce.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="S",
        help="seed of the first clip; clip i takes S + i (default: 0)",
    )
    bounce.add_argument(
        "--split",
        default="trained",
        metavar="NAME",
        help="trained, or held-out: combinations that training never shows (default: trained)",
    )
    bounce.add_argument("--quiet", action="store_true", help="no progress")
    bounce.set_defaults(run=run_bounce)
    tokenizer = kinds.add_parser(
        "tokenizer",
        formatter_class=Formatter,
        help="train the default tokenizer",
        description="Train the default tokenizer on captions of the bounce world and, where they "
        "are there, of shards.",
    )
    tokenizer.add_argument(
        "--out", type=named_path, required=True, metavar="FILE", help="the tokenizer's JSON file"
    )
    tokenizer.add_argument(
        "--vocabulary", type=whole_number(260), default=512, metavar="N", help="(default: 512)"
    )
    tokenizer.add_argument(
        "--extend",
        metavar="FILE",
        help="go on from this tokenizer, by path or shipped name: what has an id keeps it, so that "
        "a recipe with starts_from can go on from weights of the shorter vocabulary",
    )
    tokenizer.add_argument(
        "--clips",
        type=whole_number(1),
        default=4000,
        metavar="N",
        help="clips whose captions are read (default: 4000)",
    )
    tokenizer.add_argument(
        "--shards",
        nargs="+",
        default=["digits-train*.tar"],
        metavar="GLOB",
        help="shards whose captions are read, below --data (default: digits-train*.tar)",
    )
    tokenizer.add_argument(
        "--data", metavar="DIR", help="folder of data sets (default: the variable CODI_DATA)"
    )
    tokenizer.add_argument("--quiet", action="store_true", help="no progress")
    tokenizer.set_defaults(run=run_tokenizer)
    judges = kinds.add_parser(
        "judges",
        formatter_class=Formatter,
        help="train the judges of real media",
        description="Train the classifiers that ship to read facts of real media where there are "
        "no training shards, on PART-train*.tar of every part with facts; say how well they read "
        "those of PART-val*.tar, or of training items held out where a part has none. Takes some "
        "minutes.",
    )
    judges.add_argument(
        "--out",
        type=named_path,
        required=True,
        metavar="DIR",
        help="gets judges.json and the weights; parts that it has and that --data has not stay",
    )
    judges.add_argument(
        "--data",
        nargs="+",
        metavar="DIR",
        help="folders of the shards (default: the variable CODI_DATA)",
    )
    judges.add_argument("--quiet", action="store_true", help="no progress")
    judges.set_defaults(run=run_judges)


# The bounce world ---------------------------------------------------------------------------------


def run_bounce(arguments: argparse.Namespace) -> int:
    """Do `codi data bounce`."""
    if arguments.sheet is None and arguments.out is None:
        raise ConfigError("codi data bounce: give --sheet FILE.png, --out DIR, or both")
    if arguments.shards and arguments.out is None:
        raise ConfigError("--shards needs --out DIR, the folder of the shards")
    from codi.cli.progress import Display
    from codi.config import unknown
    from codi.worlds import bounce

    if arguments.split not in bounce.SPLITS:
        raise ConfigError(unknown("split", arguments.split, bounce.SPLITS))
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    with Display(arguments.quiet) as display:
        if arguments.sheet is not None:
            _write_sheet(arguments.sheet, seeds, arguments.split, display)
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            write = _write_shards if arguments.shards else _write_clips
            write(arguments.out, seeds, arguments.split, display)
    return 0


def _scenes(seeds: range, split: str, display: Display) -> Iterator[tuple[int, Scene]]:
    from codi.worlds import bounce

    for index in display.count("rendering", len(seeds)):
        yield index, bounce.sample_scene(seeds[index], split)


def _write_sheet(path: Path, seeds: range, split: str, display: Display) -> None:
    """Draw one row for each clip: its caption, its frames, its waveform with the impacts."""
    import numpy as np
    from PIL import Image, ImageDraw

    from codi import media
    from codi.worlds import bounce

    text_px, wave_px, gap_px = 16, 48, 8
    width = bounce.FRAMES * bounce.SIZE_PX
    height = text_px + bounce.SIZE_PX + wave_px + gap_px
    sheet = Image.new("RGB", (width, height * len(seeds)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, scene in _scenes(seeds, split, display):
        top = index * height
        rng = np.random.default_rng(seeds[index])
        caption = bounce.write_caption(scene.facts, "text", rng, complete=True).text
        draw.text((2, top + 2), f"{seeds[index]}: {caption}", fill="black")
        frames = np.concatenate(list(bounce.render_video(scene)), axis=1)
        sheet.paste(Image.fromarray(frames), (0, top + text_px))
        wave_top = top + text_px + bounce.SIZE_PX
        for time_s in scene.impact_times_s:
            x = round(time_s / bounce.DURATION_S * width)
            draw.line([(x, wave_top), (x, wave_top + wave_px)], fill="red")
        _draw_wave(draw, bounce.render_audio(scene), wave_top + wave_px / 2, width, wave_px / 2)
    media.save_image(path, sheet)
    display.say(f"{path}: {len(seeds)} clips")


def _draw_wave(draw: Any, samples: np.ndarray, middle: float, width: int, reach: float) -> None:
    """Draw a waveform as one vertical line a pixel, from its lowest to its highest sample."""
    for x in range(width):
        part = samples[x * len(samples) // width : (x + 1) * len(samples) // width]
        low, high = middle - reach * float(part.max()), middle - reach * float(part.min())
        draw.line([(x, low), (x, high)], fill="black")


def _write_clips(folder: Path, seeds: range, split: str, display: Display) -> None:
    """Write 000-video.mp4 (with sound), 000-audio.wav and 000-text.txt of every clip."""
    import numpy as np

    from codi import media
    from codi.worlds import bounce

    for index, scene in _scenes(seeds, split, display):
        sound = media.Audio(bounce.render_audio(scene).astype(np.float32), bounce.SAMPLE_RATE_HZ)
        rng = np.random.default_rng(seeds[index])
        text = bounce.write_caption(scene.facts, "text", rng, complete=True).text
        video = media.Video(bounce.render_video(scene), bounce.FPS, sound)
        media.save_video(folder / f"{index:03d}-video.mp4", video)
        media.save_audio(folder / f"{index:03d}-audio.wav", sound)
        media.save_text(folder / f"{index:03d}-text.txt", text)
    display.say(f"{folder}: {len(seeds)} clips, each as mp4, wav and txt")


def _write_shards(folder: Path, seeds: range, split: str, display: Display) -> None:
    """Write tar files of `KEY.json`, `KEY.video.webp` and `KEY.audio.flac`."""
    from codi import media

    shard: list[tuple[str, bytes]] = []
    written = 0
    for index, scene in _scenes(seeds, split, display):
        shard += _members(f"{split}-{seeds[index]:08d}", scene, seeds[index])
        if (index + 1) % _CLIPS_A_SHARD == 0 or index + 1 == len(seeds):
            path = folder / f"bounce-{split}-{written:06d}.tar"
            media.atomic_write_bytes(path, _tar(shard))
            shard, written = [], written + 1
    display.say(f"{folder}: {len(seeds)} clips in {written} shard(s)")


def _members(key: str, scene: Scene, seed: int) -> list[tuple[str, bytes]]:
    """Return the files of a clip in a shard."""
    import numpy as np
    import soundfile
    from PIL import Image

    from codi.worlds import bounce

    rng = np.random.default_rng(seed)
    captions = {
        name: [bounce.write_caption(scene.facts, name, rng).text for _ in range(_CAPTIONS)]
        for name in bounce.SHOWS
    }
    record = {
        "captions": [caption for some in captions.values() for caption in some],
        "captions_of": captions,
        "video": {"n": bounce.FRAMES, "fps": bounce.FPS, "size": bounce.SIZE_PX},
        "audio": {"sr": bounce.SAMPLE_RATE_HZ, "seconds": bounce.DURATION_S},
        "impact_times_s": list(scene.impact_times_s),
        **scene.facts,
    }
    strip, sound = io.BytesIO(), io.BytesIO()
    frames = np.concatenate(list(bounce.render_video(scene)), axis=0)
    Image.fromarray(frames).save(strip, "WEBP", lossless=True)
    soundfile.write(sound, bounce.render_audio(scene), bounce.SAMPLE_RATE_HZ, format="FLAC")
    return [
        (f"{key}.json", json.dumps(record).encode()),
        (f"{key}.video.webp", strip.getvalue()),
        (f"{key}.audio.flac", sound.getvalue()),
    ]


def _tar(members: list[tuple[str, bytes]]) -> bytes:
    """Return a tar file that depends on its members alone: no times, no owners."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return whole.getvalue()


# The tokenizer ------------------------------------------------------------------------------------


def run_tokenizer(arguments: argparse.Namespace) -> int:
    """Do `codi data tokenizer`."""
    from codi import media
    from codi.cli.progress import Display
    from codi.data.shards import index_shard
    from codi.data.source import captions_in, data_root, find_files
    from codi.tokenizer import extend_tokenizer, load_tokenizer, train_tokenizer

    shards = [
        path for glob in arguments.shards for path in find_files(glob, data_root(arguments.data))
    ]
    with Display(arguments.quiet) as display:
        texts = list(_world_captions(arguments.clips, display))
        if not shards:
            display.say(f"note: no shards match {' '.join(arguments.shards)}; world captions alone")
        for path in shards:
            for item in index_shard(path):
                texts += captions_in(item.record())
        tokenizer = (
            train_tokenizer(texts, arguments.vocabulary)
            if arguments.extend is None
            else extend_tokenizer(load_tokenizer(arguments.extend), texts, arguments.vocabulary)
        )
        with media.atomic_path(arguments.out) as temporary:
            tokenizer.library.save(str(temporary))
        longest = max(tokenizer.kept(text, 0)[1] for text in texts)
        display.say(
            f"{arguments.out}: {len(tokenizer)} entries from {len(texts)} captions, "
            f"the longest of {longest} tokens"
        )
    return 0


def _world_captions(clips: int, display: Display) -> Iterator[str]:
    """Yield a caption of every modality of each clip, held-out combinations included."""
    import numpy as np

    from codi.worlds import bounce

    rng = np.random.default_rng(0)
    for index in display.count("writing captions", clips):
        scene = bounce.sample_scene(index, "trained" if index % 4 else "held-out")
        for name in bounce.SHOWS:
            yield bounce.write_caption(scene.facts, name, rng).text


# The judges ---------------------------------------------------------------------------------------


def run_judges(arguments: argparse.Namespace) -> int:
    """Do `codi data judges`."""
    from codi.cli.progress import Display
    from codi.data.source import data_roots
    from codi.evaluation.teaching import teach_judges

    roots = data_roots(arguments.data)
    with Display(arguments.quiet) as display:
        made = teach_judges(roots, arguments.out, display.count)
        for part, table in made.items():
            for name, judge in table["judges"].items():
                rates = [f"{m} {100 * a['fp16']:.1f} %" for m, a in judge["accuracy"].items()]
                display.say(f"{part}-{name}: {', '.join(rates)} of {table['tried']} right")
        judges = [judge for table in made.values() for judge in table["judges"].values()]
        numbers = sum(judge["numbers"] for judge in judges)
        display.say(f"{arguments.out}: {len(judges)} judges, {numbers:,} numbers in half precision")
    return 0
