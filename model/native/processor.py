"""The features of this machine's processor by which engines are selected."""

from functools import cache
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")


@cache
def features() -> frozenset[str]:
    """Return those of FEATURES that the kernel reports for the processor."""
    flags = set((cpuinfo("flags") or cpuinfo("Features")).split())
    return frozenset(flags & set(FEATURES))


def cpuinfo(key: str) -> str:
    """Return the first value of a key of /proc/cpuinfo; empty if there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(key)), "")


def has_fast_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 in hardware."""
    return bool(features() & {"avx512_bf16", "amx_bf16"})
