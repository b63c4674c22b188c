"""The one way to run a network: frames in, probability maps out.

`Engine(source)` takes a checkpoint's path, a `Loaded` checkpoint or a bare network.  `submit` accepts uint8 frames and
returns a Future, so that a caller keeps two batches in flight; `logits` is for proofs.  Every engine is exact to the
readable module within its precision; tests prove it.
"""

from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint import Loaded, load
from model.classifier import FusedClassifier
from model.dasnet import DASNet
from model.engine.autotune import choose
from model.engine.backend import Backend, Frames, Maps
from model.engine.native import NativeBackend
from model.engine.torch import DTYPES, TorchBackend
from model.errors import ChoiceError, EngineError
from model.metadata import Metadata

KINDS = ("auto", "native", "torch", "module", "cuda")
DEVICES = ("auto", "cpu", "cuda")


class Engine:
    """Thread-safe; several may live in one process.

    device: "auto", "cpu", "cuda" or "cuda:N".  precision: "auto", "fp32", "bf16", on CUDA also "fp16".
    kind: "native" is our own code for a processor, "torch" the exact rewrite on one, "cuda" that on a GPU, "module" the
    readable network as it is.
    threads: of the CPU, None: torch's own number.
    """

    def __init__(
        self,
        source: str | Path | Loaded | nn.Module,
        device: str = "auto",
        precision: str = "auto",
        kind: str = "auto",
        threads: int | None = None,
    ) -> None:
        loaded = load(source) if isinstance(source, str | Path) else source
        network = loaded.network if isinstance(loaded, Loaded) else loaded
        self.metadata = loaded.metadata if isinstance(loaded, Loaded) else Metadata()
        beside = loaded.classifier if isinstance(loaded, Loaded) else None
        self.classify = FusedClassifier(beside) if beside else None  # of found targets; None: the network names them
        self.multiple = int(getattr(network, "multiple", 32))
        self._backend = _choose(network, self.multiple, device, precision, kind, threads)
        self.kind, self.device, self.precision = self._backend.kind, self._backend.device, self._backend.precision
        self.at_once = self._backend.at_once  # batches under way that keep the device busy

    @property
    def name(self) -> str:
        """For people and for `dasnet_build_info`."""
        return f"{self.kind}-{self.device.type}-{self.precision}"

    def logits(self, batch: Tensor | NDArray[np.float32]) -> Tensor:
        """float32 (N, C, H, W) in 0..1, sides multiples of `multiple` -> float32 logits (N, classes, H, W)."""
        return self._backend.logits(torch.as_tensor(batch))

    def submit(self, frames: Frames) -> "Future[Maps]":
        """uint8 RGB (N, H, W, 3), any size -> a Future of float32 probabilities (N, classes, H, W)."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise EngineError(f"frames of {frames.dtype} {frames.shape}; allowed: uint8 (N, H, W, 3)")
        return self._backend.submit(frames)

    def close(self) -> None:
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _choose(network: nn.Module, multiple: int, device: str, precision: str, kind: str, threads: int | None) -> Backend:
    where = _choose_device(device)
    if kind not in KINDS:
        raise ChoiceError(f"engine {kind!r}; allowed: {', '.join(KINDS)}")
    if where.type == "cuda":
        if kind not in ("auto", "cuda"):
            raise ChoiceError(f"engine {kind!r} on {device!r}; allowed: auto, cuda")
        from model.cuda.backend import CudaBackend

        return CudaBackend(network, where, "fp16" if precision == "auto" else precision, multiple)
    if kind == "cuda":
        raise ChoiceError("engine 'cuda' needs device cuda; allowed: auto, native, torch, module")
    if precision not in ("auto", *DTYPES):
        raise ChoiceError(f"precision {precision!r}; allowed: auto, {', '.join(DTYPES)}")
    if kind == "torch" and not isinstance(network, DASNet):
        raise ChoiceError(f"engine 'torch' runs DAS-Net only, not {type(network).__name__}; allowed: module")
    if kind == "module":
        precision = "fp32" if precision == "auto" else precision
    if "auto" in (kind, precision):
        choice = choose(network, multiple, threads, kind)
        kind = choice.kind if kind == "auto" else kind
        precision = choice.precision if precision == "auto" else precision
    if kind == "native":
        return NativeBackend(network, precision, multiple, threads)
    return TorchBackend(network, kind, precision, multiple, threads)


def _choose_device(device: str) -> torch.device:
    if device.partition(":")[0] not in DEVICES:
        raise ChoiceError(f"device {device!r}; allowed: {', '.join(DEVICES)}, cuda:N")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ChoiceError(f"device {device!r}: no CUDA device is usable here; allowed: auto, cpu")
    return torch.device(device)
