"""Telling the C library to keep freed memory: the large buffers of a forward pass are then not mapped anew each time."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
"""As glibc's malloc.h numbers them."""


def keep_memory() -> None:
    """On Linux with glibc; measured on 2 cores, networks run 1.3 to 2 times as fast, for some more memory.

    Call it before anything large is allocated, so before torch is imported. One arena: the others, of threads, cannot
    hold large buffers, which would be mapped and unmapped again.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)
