"""Tune glibc's malloc: keep freed memory for the next operation, or map large blocks and return them when freed.

By default glibc maps each block over 32 MB anew and unmaps it when it is freed, so every operation on a full-size
feature map page-faults and clears all its pages again: about half of the time of a plain forward pass of torch on a
CPU.  Without mappings and trimming, freed memory is reused (`keep_memory`).  The price: the process keeps its peak
memory, and aligned blocks such as tensors leave gaps in the heap that no later block fits into (glibc bug 14581, before
version 2.38), so that memory grows for hours.

An engine that allocates little per frame gains nothing from that.  With every large block mapped (`map_large_blocks`),
its frames of 320x256 take about 4% longer and its memory stays constant.
"""

import ctypes
import os
import sys

# From malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8
TOP_PAD_BYTES = 64 << 20
MMAP_THRESHOLD_BYTES = 512 << 10  # a small frame's feature maps are larger; a lower value is measurably slower
MAX_MAPPINGS = 65536  # glibc's own limit


def keep_memory() -> bool:
    """Make this process reuse freed memory; return whether it was configured.

    Call it before large tensors are allocated, from any thread.
    """
    return _set(
        (M_MMAP_MAX, 0),
        (M_TRIM_THRESHOLD, 2**31 - 1),
        (M_TOP_PAD, TOP_PAD_BYTES),
        (M_ARENA_MAX, 1),  # other arenas are limited to 64 MB and would map larger blocks
    )


def map_large_blocks() -> bool:
    """Make this process map every large block; return whether it was configured."""
    return _set(
        (M_MMAP_MAX, MAX_MAPPINGS),
        (M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),  # setting it stops glibc from raising it to the largest freed block
        (M_TRIM_THRESHOLD, TOP_PAD_BYTES),
        (M_ARENA_MAX, 1),  # every further arena has gaps of its own
    )


def _set(*settings: tuple[int, int]) -> bool:
    """Return False without glibc, or where the user configured it or preloaded another allocator."""
    configured = {"MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD"} & os.environ.keys()
    if not sys.platform.startswith("linux") or configured:
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(name, value) == 1 for name, value in settings)
