"""Select the fastest CPU engine: by what the processor supports, then by a short timing whose result is cached.

A processor's name is a poor predictor: bfloat16 through AVX-512 halves the time on one maker's cores and doubles it on
another's.  The timing takes about a second; its result is stored in the user's cache folder, keyed by processor,
versions and network.
"""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from model.dasnet import DASNet
from model.engine.backend import Backend
from model.engine.native import NativeBackend, unsupported_reason
from model.engine.torch import TorchBackend
from model.native.library import version as native_version
from model.native.processor import cpuinfo, has_fast_bf16

SIDE_PX = 256
ROUNDS = 3
MIN_SPEEDUP = 1.15  # a less exact precision is selected only from this speed-up on


@dataclass(frozen=True)
class EngineSelection:
    """The engine and precision selected, and why."""

    kind: str
    precision: str
    reason: str


def select_engine(network: nn.Module, multiple: int, threads: int | None, kind: str = "auto") -> EngineSelection:
    """Select engine and precision for a CPU; with kind "native" or "torch", the precision only."""
    if not isinstance(network, DASNet):
        return EngineSelection("reference", "fp32", f"no faster engine runs {type(network).__name__}")
    reason = unsupported_reason(network)
    if kind == "auto":
        kind = "torch" if reason else "native"
    not_native = f"; not native: {reason}" if reason else ""
    if not has_fast_bf16():
        return EngineSelection(kind, "fp32", f"the processor does not compute in bfloat16{not_native}")
    path = _cache_folder() / f"{_cache_key(network, kind, threads)}.json"
    try:
        cached = EngineSelection(**json.loads(path.read_text(encoding="utf-8")))
        if cached.kind == kind and cached.precision in ("fp32", "bf16"):
            return cached
    except (OSError, ValueError, TypeError):
        pass  # not timed yet, or written by another version
    precision, timing = _faster_precision(network, kind, multiple, threads)
    selection = EngineSelection(kind, precision, timing + not_native)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(selection)), encoding="utf-8")
    except OSError:
        pass  # without a writable cache it is timed at every start
    return selection


def _faster_precision(network: DASNet, kind: str, multiple: int, threads: int | None) -> tuple[str, str]:
    def backend(precision: str) -> Backend:
        if kind == "native":
            return NativeBackend(network, precision, multiple, threads)
        return TorchBackend(network, kind, precision, multiple, threads)

    backends = {precision: backend(precision) for precision in ("fp32", "bf16")}
    times_ms: dict[str, list[float]] = {precision: [] for precision in backends}
    generator = np.random.default_rng(0)
    for _ in range(ROUNDS + 1):  # interleaved, so that other load on the machine slows both
        frames = generator.integers(0, 256, (1, SIDE_PX, SIDE_PX, 3), np.uint8)
        for precision, one in backends.items():
            started_s = time.perf_counter()
            one.submit(frames).result()
            times_ms[precision].append((time.perf_counter() - started_s) * 1e3)
    for one in backends.values():
        one.close()
    fp32, bf16 = (median(times_ms[precision][1:]) for precision in ("fp32", "bf16"))
    precision = "bf16" if bf16 * MIN_SPEEDUP < fp32 else "fp32"
    return precision, f"timed at {SIDE_PX}x{SIDE_PX}: fp32 {fp32:.0f} ms, bf16 {bf16:.0f} ms"


def _cache_key(network: DASNet, kind: str, threads: int | None) -> str:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    processor = "".join(c if c.isalnum() else "-" for c in cpuinfo("model name") or platform.machine())
    version = native_version() if kind == "native" else torch.__version__
    return f"engine-{kind}-{processor}-{os.cpu_count()}-{threads or torch.get_num_threads()}-{version}-{parameters}"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "dasnet"
