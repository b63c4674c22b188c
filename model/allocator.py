"""Where glibc puts large blocks: kept for the next operation, or mapped, and given back as soon as they are free.

By itself it maps each block over 32 MB anew and unmaps it when it is freed, so every operation on a full-size map
faults in and clears all its pages again: that is about half of the time of a plain forward pass of torch on a CPU.
Without such mappings, and without trimming, freed memory is used again (`keep_memory`).  The price: memory once needed
stays with the process, and aligned blocks, as tensors are, leave gaps in the heap that no later one fits into (glibc
bug 14581, before version 2.38): it grows for hours.

An engine that allocates little for each frame has nothing to gain from that.  With every large block mapped
(`map_large_blocks`) its frames of 320x256 take about 4% longer, and its memory stays as it is.
"""

import ctypes
import os
import sys

# Names and numbers of malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8
TOP_PAD_BYTES = 64 << 20
MAPPED_BYTES = 512 << 10  # and more: the maps of a small frame; with less, a frame takes measurably longer
MOST_MAPPINGS = 65536  # glibc's own limit


def keep_memory() -> bool:
    """Set this process up; before large tensors are made, from any thread.  False: nothing was changed."""
    return _set(
        (M_MMAP_MAX, 0),
        (M_TRIM_THRESHOLD, 2**31 - 1),
        (M_TOP_PAD, TOP_PAD_BYTES),
        (M_ARENA_MAX, 1),  # other arenas are limited to 64 MB and would map larger blocks after all
    )


def map_large_blocks() -> bool:
    """The same, the other way round."""
    return _set(
        (M_MMAP_MAX, MOST_MAPPINGS),
        (M_MMAP_THRESHOLD, MAPPED_BYTES),  # once set, it does not rise to the largest block that was freed
        (M_TRIM_THRESHOLD, TOP_PAD_BYTES),
        (M_ARENA_MAX, 1),  # every other one has gaps of its own
    )


def _set(*settings: tuple[int, int]) -> bool:
    """False: not glibc, or the user chose, by glibc's own variables or by preloading another allocator."""
    chosen = {"MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD"} & os.environ.keys()
    if not sys.platform.startswith("linux") or chosen:
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(name, value) == 1 for name, value in settings)
