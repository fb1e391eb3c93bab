"""The ground rules of the tests hold: no network, one thread, warnings are errors."""

from __future__ import annotations

import socket
import warnings
from pathlib import Path

import pytest
import torch


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0)])
def test_addresses_outside_this_machine_are_refused(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as connection, pytest.raises(PermissionError, match="network"):
        connection.connect(address)


@pytest.mark.parametrize("host", ["example.org", b"example.org"])
def test_names_outside_this_machine_are_not_looked_up(host: str | bytes) -> None:
    with pytest.raises(PermissionError, match="network"):
        socket.getaddrinfo(host, 80)


def test_processes_of_this_machine_may_talk(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
        server.accept()[0].close()
    with socket.socket(socket.AF_UNIX) as client, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        client.connect(str(tmp_path / "socket"))


def test_torch_has_one_thread() -> None:
    assert torch.get_num_threads() == 1


def test_warnings_are_errors() -> None:
    with pytest.raises(UserWarning):
        warnings.warn("a doubt", stacklevel=1)


def test_tmp_cwd_is_the_current_folder_and_empty(tmp_cwd: Path) -> None:
    assert Path.cwd() == tmp_cwd.resolve()
    assert not list(tmp_cwd.iterdir())
