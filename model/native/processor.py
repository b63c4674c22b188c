"""What this machine's processor can do, as far as engines are chosen by it."""

from functools import cache
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")


@cache
def features() -> frozenset[str]:
    """Those of FEATURES that the processor has, by the kernel's word."""
    flags = set((cpuinfo("flags") or cpuinfo("Features")).split())
    return frozenset(flags & set(FEATURES))


def cpuinfo(key: str) -> str:
    """The first value of a key of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(key)), "")


def has_fast_bf16() -> bool:
    return bool(features() & {"avx512_bf16", "amx_bf16"})
