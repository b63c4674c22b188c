"""The one way to run a network: frames in, probability maps out.

`Engine(source)` takes a checkpoint's path, a `Loaded` checkpoint or a bare network.  `submit` accepts uint8 frames and
returns a Future, so that a caller keeps two batches in flight; `logits` is for proofs.  Every engine is exact to the
readable module within its precision; tests prove it.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint import Loaded, load
from model.dasnet import DASNet
from model.errors import ChoiceError, EngineError
from model.fused import FusedDASNet
from model.metadata import Metadata
from model.processor import has_fast_bf16

KINDS = ("auto", "torch", "module")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Engine:
    """Thread-safe: batches run one after another, in the order of submission.

    kind: "torch" is the exact rewrite, "module" the readable network as it is; precision: "fp32" or "bf16".
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
        self.device = _choose_device(device)
        if precision not in ("auto", *PRECISIONS):
            raise ChoiceError(f"precision {precision!r}; allowed: auto, {', '.join(PRECISIONS)}")
        if kind not in KINDS:
            raise ChoiceError(f"engine {kind!r}; allowed: {', '.join(KINDS)}")
        self.kind = ("torch" if isinstance(network, DASNet) else "module") if kind == "auto" else kind
        if self.kind == "torch" and not isinstance(network, DASNet):
            raise ChoiceError(f"engine 'torch' runs DAS-Net only, not {type(network).__name__}; allowed: module")
        self.precision = _choose_precision(self.device, self.kind) if precision == "auto" else precision
        self.multiple = int(getattr(network, "multiple", 32))
        self._dtype = PRECISIONS[self.precision]
        network = network.eval().to(self.device)
        self._network = FusedDASNet(network).eval() if isinstance(network, DASNet) and self.kind == "torch" else network
        self._threads = threads
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine", initializer=self._set_threads)

    def _set_threads(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)

    @property
    def name(self) -> str:
        """For people and for `dasnet_build_info`."""
        return f"{self.kind}-{self.device.type}-{self.precision}"

    def logits(self, batch: Tensor | NDArray[np.float32]) -> Tensor:
        """float32 (N, C, H, W) in 0..1, sides multiples of `multiple` -> float32 logits (N, classes, H, W)."""
        return self._executor.submit(self._logits, torch.as_tensor(batch)).result()

    def submit(self, frames: NDArray[np.uint8]) -> "Future[NDArray[np.float32]]":
        """uint8 RGB (N, H, W, 3), any size -> a Future of float32 probabilities (N, classes, H, W)."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise EngineError(f"frames of {frames.dtype} {frames.shape}; allowed: uint8 (N, H, W, 3)")
        return self._executor.submit(self._probabilities, frames)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    @torch.inference_mode()
    def _logits(self, batch: Tensor) -> Tensor:
        image = batch.to(self.device, memory_format=torch.channels_last)
        if self.kind == "torch":  # it mixes kernels in float32 whatever it is given
            logits: Tensor = self._network(image.to(self._dtype))
            return logits.float().cpu()
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not torch.float32):
            logits = self._network(image)
        return logits.float().cpu()

    @torch.inference_mode()
    def _probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = frames.shape[1:3]
        image = torch.from_numpy(frames).permute(0, 3, 1, 2).to(self.device).float() / 255
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            # Mirrored, as in training; a picture smaller than the margin can only be repeated at its edge.
            mode = "reflect" if below < height and right < width else "replicate"
            image = F.pad(image, (0, right, 0, below), mode=mode)
        return self._logits(image)[:, :, :height, :width].sigmoid().numpy()


def _choose_precision(device: torch.device, kind: str) -> str:
    """bfloat16 where the processor computes in it: half the time, and masks that agree to 0.99 and better."""
    return "bf16" if device.type == "cpu" and kind == "torch" and has_fast_bf16() else "fp32"


def _choose_device(device: str) -> torch.device:
    if device.partition(":")[0] not in DEVICES:
        raise ChoiceError(f"device {device!r}; allowed: {', '.join(DEVICES)}, cuda:N")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ChoiceError(f"device {device!r}: no CUDA device is usable here; allowed: auto, cpu")
    return torch.device(device)
