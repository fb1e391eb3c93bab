"""Compiled networks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from codi.config import ConfigError
from codi.nn.compiling import CACHE, cache_folder, compile_network, require_compiler
from codi.unets.unet import UNetConfig
from tests.small import awake

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"
)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="'no-such-compiler' is not here; install one"):
        compile_network(nn.Linear(2, 2), torch.device("cpu"))


@needs_compiler
def test_a_compiler_is_found() -> None:
    require_compiler()


def test_translations_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/a")
    assert cache_folder() == Path("/a/codi/compiled")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/codi/compiled"


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself
def test_weights_keep_their_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    network = nn.Linear(2, 2)
    names = list(network.state_dict())
    compile_network(network, torch.device("cpu"))
    assert list(network.state_dict()) == names


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_compiled_network_gives_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    unet = UNetConfig(
        latent_channels=4, channels=16, context_width=8, duration_s=2.0, multipliers=(1,), depth=1,
        attention=(True,), head_channels=8, environment_width=6, groups=8,
    ).build()  # fmt: skip
    awake(unet).eval()
    given = torch.randn(1, 4, 1, 8, 8), torch.tensor([500]), torch.randn(1, 3, 8)
    expected = unet(*given)
    compile_network(unet, torch.device("cpu"))
    z_t, t, context = given
    for prompt in (context, unet.prepare(context), unet.prepare(context, [500]).at(500)):
        torch.testing.assert_close(unet(z_t, t, prompt), expected, atol=1e-5, rtol=1e-4)
    assert any(tmp_path.iterdir())
