"""What the C library does with memory that is given back."""

from __future__ import annotations

import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3) in malloc.h
_SCORING = 64 << 20, 512 << 20  # bytes: a larger piece goes back at once; at most so many wait for the next piece
_TRAINING = 1 << 30, (2 << 30) - 1  # the pieces of a batch are larger, and nothing else is wanted of the machine
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory(*, training: bool = False) -> None:
    """Let the process keep memory for its next tensors, where it runs on the GNU C library; elsewhere nothing happens.

    By default that library hands tens of MiB back to the system after every layer and asks for them again for the next,
    and the system clears every page anew, which can take longer than the layers themselves (docs/performance.md, "Memory that
    is kept"). It is a setting of the whole process, so it is for our program and not for `genzqa.load`. What is set in
    the environment is left alone.

    Args:
        training: Larger pieces are kept, and more of them.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _USERS_OWN):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries of Linux have none
    if mallopt is not None:
        largest, kept = _TRAINING if training else _SCORING
        mallopt(_MMAP_THRESHOLD, largest)
        mallopt(_TRIM_THRESHOLD, kept)
