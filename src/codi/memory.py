"""Ask the C library to keep the memory that was freed, or to give it back.

Keeping makes training faster: glibc gives large freed blocks back to the operating system at once,
and every new tensor then costs page faults. In training that was most of the time of the stages
that make spectrograms (docs/log.md, 2026-11-24). It knows no tensor library.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt(3)


def keep_freed_memory() -> bool:
    """Keep freed blocks for reuse from now on; say whether this platform could be asked.

    Memory that was used once stays with the process, so this is for training and long jobs, not for
    a process whose peak should pass.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    applied = [library.mallopt(name, value) == 1 for name, value in settings]
    return all(applied)


def return_freed_memory() -> bool:
    """Give freed blocks back to the operating system now; say whether this platform could be asked.

    Small tensors that were freed between others would otherwise stay with the process.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True
