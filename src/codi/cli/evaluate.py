"""`codi evaluate`: measure a model against a suite of tests."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from codi.cli.options import add_device, add_results, named_path, whole_number
from codi.cli.sampling import add_sampling, read_guidance, read_interval

SUMMARY = "measure what a model makes"

_DESCRIPTION = """\
Generate samples for every task of a suite and measure them: do they say what was asked for, and do
sound and picture agree? The suite `bounce` reads facts and impacts back out of the samples with
plain signal processing; `digits` uses held-out recordings and pictures, `real` all parts of the
real data that are in --data (PART-test*.tar, or else PART-val*.tar). Their facts are read by
classifiers that are trained on PART-train*.tar where that folder is given to --data as well, or
is CODI_DATA, and by those that ship otherwise; the report says which. `table2` to `table11` measure
what CoDi's paper measures, on the data sets that it names; `bridging`, `coherence`, `conditions`,
`temporal`, `weights` and `unseen` test its claims on the bounce world. See docs/howto/evaluate.md.

examples:
  codi evaluate --suite bounce --samples 200 --out eval
  codi evaluate --suite real --data DIR --samples 40 --out eval
  codi evaluate --suite real --data TEST TRAINING --out eval
  codi evaluate --suite table5 --data DIR --extractors panns=FILE vggish=FILE --out eval
  codi evaluate --model runs/mine/model --suite bounce --samples 16 --tasks text-to-image --out eval
  codi evaluate --suite mine.toml --out eval
  codi evaluate --suite coherence --out eval --results docs/results.md
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `codi evaluate`."""
    parser.description = _DESCRIPTION
    parser.set_defaults(run=run)
    parser.add_argument(
        "--model", default="tiny", metavar="M", help="a shipped model or a folder (default: tiny)"
    )
    parser.add_argument(
        "--suite",
        default="bounce",
        metavar="S",
        help="bounce, digits, real, a claim (bridging, coherence, conditions, temporal, weights, "
        "unseen), or a table of the paper: table2 ... table11; or a file of your own "
        "(default: bounce)",
    )
    parser.add_argument(
        "--samples",
        "--num",
        type=whole_number(1),
        metavar="N",
        help="a task (default: the suite's own number; 100 for bounce, digits and real)",
    )
    parser.add_argument(
        "--out",
        type=named_path,
        default=Path("eval"),
        metavar="DIR",
        help="folder of the report (default: eval)",
    )
    parser.add_argument(
        "--tasks", nargs="+", metavar="T", help="names of tasks of the suite (default: all)"
    )
    parser.add_argument(
        "--splits", nargs="+", metavar="S", help="of the items, such as trained or held-out"
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="S",
        help="of the choice of items and of their noise (default: 0)",
    )
    parser.add_argument(
        "--batch",
        type=whole_number(1),
        default=16,
        metavar="N",
        help="samples at once (default: 16)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="DIR",
        help="folders of data sets, of which the first that has a set or a split gives it "
        "(default: the variable CODI_DATA, where PART-train*.tar are looked for in any case)",
    )
    parser.add_argument(
        "--extractors",
        nargs="+",
        type=_named,
        default=[],
        metavar="NAME=PATH",
        help="file, folder or hub name of networks that metrics need, such as inception=FILE; "
        "codi instead of a path takes the model's own prompt encoders",
    )
    add_results(parser)
    add_device(parser)
    add_sampling(parser, "the suite's own settings, or the model's, by default")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _named(text: str) -> tuple[str, str]:
    """Read NAME=PATH."""
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH, such as clip=FOLDER")
    return name, path


def run(arguments: argparse.Namespace) -> int:
    """Do `codi evaluate`."""
    from codi.cli.progress import Display
    from codi.evaluation.report import left_out_said
    from codi.evaluation.runner import evaluate
    from codi.modalities import names

    report = arguments.out / Path(arguments.suite).stem
    with Display(arguments.quiet) as display:
        cells = evaluate(
            model=arguments.model,
            suite=arguments.suite,
            samples=arguments.samples,
            out=arguments.out,
            tasks=arguments.tasks,
            splits=arguments.splits,
            seed=arguments.seed,
            steps=arguments.steps,
            sampler=arguments.sampler,
            eta=arguments.eta,
            spacing=arguments.spacing,
            guidance=read_guidance(arguments.guidance, names()),
            guidance_interval=read_interval(arguments.guidance_interval),
            reuse=arguments.reuse,
            batch=arguments.batch,
            device=arguments.device,
            data=arguments.data,
            extractors=dict(arguments.extractors),
            results=arguments.results,
            progress=display.count,
        )
        told = json.loads(Path(f"{report}.json").read_text(encoding="utf-8"))
        for line in left_out_said(told["settings"]["left_out"] or {}):
            display.say(line)
        tasks = len({cell.task for cell in cells})
        display.say(f"{report}.md, .html and .json: {len(cells)} numbers of {tasks} tasks")
        if arguments.results:
            display.say(f"{arguments.results}: the table of {report.name}")
    return 0
