"""`codi evaluate` hands its options on as the runner takes them."""

from __future__ import annotations

import inspect

import pytest

from codi.cli import build_parser


def test_the_runner_takes_every_option() -> None:
    runner = pytest.importorskip("codi.evaluation.runner")
    taken = inspect.signature(runner.evaluate).parameters
    options = vars(build_parser().parse_args(["evaluate"])).keys() - {"run", "quiet", "plugin"}
    assert options | {"progress"} <= taken.keys()
