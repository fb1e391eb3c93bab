"""What is done to a network before inference follows from one table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from codi.nn import readiness
from codi.nn.readiness import Readiness

CASES = {
    ("cpu", False, True): ("pack", "pack", True),
    ("cpu", False, False): (None, None, True),
    ("cpu", True, True): ("compile_network", "pack", True),
    ("cpu", True, False): ("compile_network", None, True),
    ("cuda", False, True): ("replay", "replay", False),
    ("cuda", False, False): (None, None, True),
    ("cuda", True, True): ("compile_network", "pack", False),
    ("cuda", True, False): ("compile_network", None, False),
}
"""Device, compiled, lasting -> what is done to large and to small networks; prepared prompts."""


@pytest.mark.parametrize("case", CASES)
def test_one_table_says_what_is_done(
    case: tuple[str, bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str | None] = []

    def noted(name: str) -> Any:
        return lambda *_: done.append(name)

    for name in ("compile_network", "replay", "pack"):
        monkeypatch.setattr(readiness, name, noted(name))
    device, compiled, lasting = case
    ready = Readiness(torch.device(device), compiled, lasting)
    for place, large in enumerate((True, False)):
        ready.make_ready(nn.Linear(1, 1), large)
        if len(done) == place:
            done.append(None)
    assert (*done, ready.takes_prepared) == CASES[case]
