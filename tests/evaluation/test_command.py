"""The command above a table is what was typed, without the places of a machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from codi.cli import build_parser
from codi.evaluation.command import Command
from codi.folders import SHIPPED

TINY = SHIPPED / "tiny"
EVEN = {(task, split): 8 for task in ("a", "b") for split in ("trained", "held-out")}


def test_it_names_splits_samples_and_seed() -> None:
    wanted = "`codi evaluate --suite bounce --splits trained held-out --samples 8 --seed 3`"
    assert Command("bounce", TINY, seed=3, every=["b", "a"]).said(EVEN) == wanted


@pytest.mark.parametrize("other", [9, None])
def test_pieces_of_other_or_unknown_samples_are_said_to_be_such(other: int | None) -> None:
    said = Command("bounce", TINY, every=["a", "b"]).said({**EVEN, ("b", "trained"): other})
    assert said == (
        "`codi evaluate --suite bounce --splits trained held-out --seed 0`, in pieces, with "
        "`--tasks`, `--splits` and `--samples`"
    )


def test_tasks_of_other_splits_are_pieces_too() -> None:
    some = {("a", "trained"): 8, ("b", "held-out"): 8}
    assert "`, in pieces, with" in Command("bounce", TINY, every=["a", "b"]).said(some)


def test_tasks_are_named_where_they_are_not_all_of_the_suite() -> None:
    assert " --tasks a b`" in Command("bounce", TINY, every=["b", "a", "c"]).said(EVEN)
    assert "--tasks" not in Command("bounce", TINY, every=["b", "a"]).said(EVEN)


def test_no_place_of_the_machine_is_named() -> None:
    given = {"inception": "/home/me/inception.pth", "clip": "codi"}
    said = Command("/home/me/mine.toml", Path("/home/me/mine"), data=2, extractors=given).said(EVEN)
    assert said.startswith(
        "`codi evaluate --model DIR --suite mine.toml --data DIR DIR "
        "--extractors inception=PATH clip=codi --splits "
    )
    assert "/" not in said


def test_the_command_line_understands_it() -> None:
    sampling = {
        "sampler": "ddim",
        "steps": 5,
        "guidance": {"image": 2.5, "audio": 3.0},
        "guidance_interval": (100, 900),
        "eta": 0.0,
    }
    said = Command("bounce", TINY, 4, ["a", "b", "c"], 1, {"clip": "codi"}, sampling).said(EVEN)
    read = build_parser().parse_args(shlex.split(said.strip("`"))[1:])
    assert (read.suite, read.seed, read.samples, read.tasks) == ("bounce", 4, 8, ["a", "b"])
    assert (read.sampler, read.steps, read.eta) == ("ddim", 5, 0.0)
    assert (read.guidance, read.guidance_interval) == (["image=2.5", "audio=3"], [100, 900])
    assert read.extractors == [("clip", "codi")]
