"""Memory for large tensors that is kept instead of given back to the kernel after every operation.

glibc maps each block over 32 MB anew and unmaps it when it is freed, so every operation on a full-size map faults in
and clears all its pages again: that is about half of the time of a plain forward pass on a CPU.  Without such mappings,
and without trimming, freed memory is used again.  The price: memory once needed stays with the process.
"""

import ctypes
import os
import sys

# Names and numbers of malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
TOP_PAD_BYTES = 64 << 20


def keep_memory() -> bool:
    """Set this process up; before large tensors are made, from any thread.  False: not glibc, nothing was changed.

    Respects what the user set by glibc's own variables or by another allocator that was preloaded.
    """
    if not sys.platform.startswith("linux") or "MALLOC_MMAP_MAX_" in os.environ or "LD_PRELOAD" in os.environ:
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = (
        (M_MMAP_MAX, 0),
        (M_TRIM_THRESHOLD, 2**31 - 1),
        (M_TOP_PAD, TOP_PAD_BYTES),
        (M_ARENA_MAX, 1),  # other arenas are limited to 64 MB and would map larger blocks after all
    )
    return all(library.mallopt(name, value) == 1 for name, value in settings)
