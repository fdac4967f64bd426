"""Memory of the host, where XLA's buffers come from malloc."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, from its malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next allocation; does nothing with other C libraries.

    XLA allocates a program's buffers each time it runs. glibc maps large ones and unmaps them after
    use, and when they are touched again every page of 4 KiB costs a fault: on a CPU, a sixth of the
    time of StyleGAN2's Jacobian. The price is that a process stays as large as it once was, and may
    grow by what lies between blocks in use. To be called before JAX starts its threads; the command
    line does.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    # All in one arena that is never trimmed: the others are bounded and map what does not fit.
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
        mallopt(parameter, value)
