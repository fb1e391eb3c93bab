"""Laws of keeping freed memory."""

import platform
import resource

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
