"""Laws of keeping freed memory, and of giving it back."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codi.memory import keep_freed_memory, return_freed_memory


def faults_of_fifty_tensors() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.ones(4_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_large_tensors_stop_costing_page_faults() -> None:
    if platform.libc_ver()[0] != "glibc":
        assert not keep_freed_memory()
        return
    assert keep_freed_memory()
    faults_of_fifty_tensors()
    assert faults_of_fifty_tensors() < 1000


def test_freed_memory_can_be_returned() -> None:
    assert return_freed_memory() == (platform.libc_ver()[0] == "glibc")


HOLES = """
import sys
from codi.memory import map_large_blocks

def resident():
    [line] = [l for l in open("/proc/self/status") if l.startswith("RssAnon")]
    return int(line.split()[1]) * 1024

assert map_large_blocks()
first = bytearray(30 * 2**20)
del first  # by default, blocks of this size would now lie in the heap
before = resident()
blocks = [(bytearray(b"x" * 2 * 2**20), bytearray(b"x" * 2000)) for _ in range(40)]
small = [pair[1] for pair in blocks]
del blocks
sys.exit(resident() - before > 10 * 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc")
def test_large_blocks_leave_no_holes() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    subprocess.run([sys.executable, "-c", HOLES], check=True, env=environment)
