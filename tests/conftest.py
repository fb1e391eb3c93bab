"""What holds for every test: one thread, a fixed seed, no network."""

from __future__ import annotations

import os

# OpenMP reads these once, when torch is first imported: threads that spin while they wait make
# small models many times slower, above all where several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Read once too, when the library is imported: a hub that is not there is tried again for seconds.
os.environ["HF_HUB_OFFLINE"] = "1"

import random
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from codi.build import Model
from codi.pipeline import Pipeline
from codi.weights import save_model
from tests.small import awake_model

torch.set_num_threads(1)

# The same examples every time and no deadline: a busy machine must not turn a law into a guess.
settings.register_profile("codi", max_examples=50, deadline=None, derandomize=True, database=None)
settings.load_profile("codi")

SEED = 0
_LOCAL_HOSTS = {None, "", "localhost", "localhost.localdomain", "0.0.0.0", "::", "::1"}


def _is_local(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    return name in _LOCAL_HOSTS or name == socket.gethostname() or str(name).startswith("127.")


def _block_network(event: str, details: tuple[Any, ...]) -> None:
    """Refuse every connection and name look-up that leaves this machine."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = details[1]
        host = address[0] if isinstance(address, tuple) else None  # Unix sockets have a path
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = details[0]
    else:
        return
    if not _is_local(host):
        raise PermissionError(f"tests may not use the network: {host}")


# An audit hook sees every socket of the process, whichever library opens it and however early.
sys.addaudithook(_block_network)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@pytest.fixture(scope="module")
def model() -> Model:
    """Return the tests' small model, whose streams hear each other as after training."""
    return awake_model()


@pytest.fixture(scope="module")
def pipeline(model: Model) -> Pipeline:
    """Return a pipeline of `model`, which is in memory."""
    return Pipeline(model.config, model=model)


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds `model`."""
    saved = tmp_path_factory.mktemp("model")
    save_model(model, saved)
    return saved


@pytest.fixture
def tmp_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run a test inside an empty folder, for what writes to the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
