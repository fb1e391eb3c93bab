"""Ask the C library to keep the memory that was freed, or to give it back.

Keeping makes training faster: glibc gives large freed blocks back to the operating system at once,
and every new tensor then costs page faults. In training that was most of the time of the stages
that make spectrograms (docs/log.md, 2026-11-24). It knows no tensor library.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Keep freed blocks for reuse from now on; say whether this platform could be asked.

    Memory that was used once stays with the process, so this is for training and long jobs, not for
    a process whose peak should pass.
    """
    return _set((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))


def map_large_blocks() -> bool:
    """Map every block of a megabyte by itself; say whether this platform could be asked.

    Then it is given back as soon as it is freed. By default glibc learns from what is freed to hold
    blocks of up to 32 MiB in its heap, whose holes add up to gigabytes where tensors of many sizes
    pass through.
    """
    return _set((_MMAP_THRESHOLD, 2**20))


def return_freed_memory() -> bool:
    """Give freed blocks back to the operating system now; say whether this platform could be asked.

    Small tensors that were freed between others would otherwise stay with the process.
    """
    if not _has_glibc():
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def _set(*settings: tuple[int, int]) -> bool:
    if not _has_glibc():
        return False
    library = ctypes.CDLL(None)
    applied = [library.mallopt(name, value) == 1 for name, value in settings]
    return all(applied)


def _has_glibc() -> bool:
    return platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
