"""Freed memory that a process keeps for its next arrays.

glibc gives large buffers back to the system as they are freed, and touching new ones costs a page
fault every 4 KiB: a step of training a face network at full size has hundreds of thousands.
"""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h: nothing is mapped for itself, the heap is not trimmed, and there is one.
_SETTINGS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_ARENA_MAX": (-8, 1)}


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, until it ends; whether its C library can do that.

    It is meant for a command's start: memory of a phase that needs much is not there for other
    programs afterwards.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = [mallopt(setting, value) == 1 for setting, value in _SETTINGS.values()]
    return all(taken)
