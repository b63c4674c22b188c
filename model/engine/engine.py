"""Run inference with a network: frames in, probability maps out.

`Engine(source)` takes the path of a checkpoint, a `Loaded` checkpoint or a bare network.  `submit` takes uint8 frames
and returns a Future, so that a caller can keep several batches in flight; `logits` serves tests.  Every engine computes
the function of the reference network within its precision (tests/unit/model/test_engines.py); of a checkpoint, the
native engine's `submit` computes the last stage only where a target can be (docs/native-engine.md).
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
from model.dasnet import DASNet
from model.engine.autotune import select_engine
from model.engine.backend import Backend, Frames, Maps
from model.engine.native import NativeBackend
from model.engine.torch import DTYPES, TorchBackend
from model.errors import ChoiceError, EngineError
from model.judge import FusedJudge
from model.metadata import Metadata

KINDS = ("auto", "native", "torch", "cuda", "reference")
KIND_ALIASES = {"module": "reference"}  # the name before version 0.2
DEVICES = ("auto", "cpu", "cuda")
SPARSE_RATIO = 1 / 6  # of the pixel threshold: docs/experiments.md, "A sparse last stage"


class Engine:
    """Runs a network on one device.  Thread-safe; a process may have several.

    Attributes:
        metadata: The checkpoint's, or the defaults for a bare network.
        judge: The checkpoint's judge of chips, or None.
        multiple: Sides of the network's input are multiples of this.
        max_in_flight: How many submitted batches keep the device busy; more would only be queued.
    """

    def __init__(
        self,
        source: str | Path | Loaded | nn.Module,
        device: str = "auto",
        precision: str = "auto",
        kind: str = "auto",
        threads: int | None = None,
    ) -> None:
        """Load `source` and start an engine for it.

        Args:
            source: Path of a checkpoint, a loaded checkpoint, or a bare network.
            device: "auto", "cpu", "cuda" or "cuda:N".
            precision: "auto", "fp32", "bf16"; on CUDA also "fp16".
            kind: "auto"; "native", our C++ engine on a CPU; "torch", the exact rewrite in torch on a CPU; "cuda", the
                engine on a GPU; "reference", the plain network on a CPU ("module" is an alias).
            threads: CPU threads; None for torch's default.

        Raises:
            CheckpointError: The checkpoint cannot be loaded.
            ChoiceError: The device, precision or engine is not available here.
        """
        loaded = load(source) if isinstance(source, str | Path) else source
        network = loaded.network if isinstance(loaded, Loaded) else loaded
        self.metadata = loaded.metadata if isinstance(loaded, Loaded) else Metadata()
        judge = loaded.judge if isinstance(loaded, Loaded) else None
        self.judge = FusedJudge(judge) if judge else None
        self.multiple = int(getattr(network, "multiple", 32))
        sparse_below = _sparse_below(self.metadata) if isinstance(loaded, Loaded) else None
        self._backend = _make_backend(network, self.multiple, device, precision, kind, threads, sparse_below)
        self.kind, self.device, self.precision = self._backend.kind, self._backend.device, self._backend.precision
        self.max_in_flight = self._backend.max_in_flight

    @property
    def name(self) -> str:
        """Return the engine's name for logs, results and the metric `dasnet_build_info`."""
        return f"{self.kind}-{self.device.type}-{self.precision}"

    def logits(self, batch: Tensor | NDArray[np.float32]) -> Tensor:
        """Return float32 logits (N, classes, H, W) of float32 images (N, C, H, W) in 0..1.

        Height and width must be multiples of `multiple`.
        """
        return self._backend.logits(torch.as_tensor(batch))

    def submit(self, frames: Frames) -> "Future[Maps]":
        """Return a Future of float32 probabilities (N, classes, H, W) of uint8 RGB frames (N, H, W, 3) of any size."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise EngineError(f"frames of {frames.dtype} {frames.shape}; must be uint8 (N, H, W, 3)")
        return self._backend.submit(frames)

    def close(self) -> None:
        """Finish the batches in flight and release the engine's resources."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _make_backend(
    network: nn.Module,
    multiple: int,
    device: str,
    precision: str,
    kind: str,
    threads: int | None,
    sparse_below: float | None,
) -> Backend:
    torch_device = _torch_device(device)
    kind = KIND_ALIASES.get(kind, kind)
    if kind not in KINDS:
        raise ChoiceError(f"engine {kind!r}; must be one of {', '.join(KINDS)}")
    if torch_device.type == "cuda":
        if kind not in ("auto", "cuda"):
            raise ChoiceError(f"engine {kind!r} on device {device!r}; must be auto or cuda")
        from model.cuda.backend import CudaBackend

        return CudaBackend(network, torch_device, "fp16" if precision == "auto" else precision, multiple)
    if kind == "cuda":
        raise ChoiceError(f"engine 'cuda' on device {device!r}; must be auto, native, torch or reference")
    if precision not in ("auto", *DTYPES):
        raise ChoiceError(f"precision {precision!r}; must be one of auto, {', '.join(DTYPES)}")
    if kind == "torch" and not isinstance(network, DASNet):
        raise ChoiceError(f"engine 'torch' runs DAS-Net only, not {type(network).__name__}; must be reference")
    if kind == "reference":
        precision = "fp32" if precision == "auto" else precision
    if "auto" in (kind, precision):
        selected = select_engine(network, multiple, threads, kind)
        kind = selected.kind if kind == "auto" else kind
        precision = selected.precision if precision == "auto" else precision
    if kind == "native":
        return NativeBackend(network, precision, multiple, threads, sparse_below)
    return TorchBackend(network, kind, precision, multiple, threads)


def _sparse_below(metadata: Metadata) -> float | None:
    """Return below which probability at half the resolution no pixel is expected to exceed its threshold, if any."""
    return SPARSE_RATIO * min(thresholds.threshold for thresholds in metadata.thresholds.values()) or None


def _torch_device(device: str) -> torch.device:
    if device.partition(":")[0] not in DEVICES:
        raise ChoiceError(f"device {device!r}; must be one of {', '.join(DEVICES)}, cuda:N")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ChoiceError(f"device {device!r}: no CUDA device is usable here; must be auto or cpu")
    return torch.device(device)
