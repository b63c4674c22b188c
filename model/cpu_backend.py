"""What the engines on a processor share: batches one after another, in a thread of the engine's own."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from model.allocator import keep_memory
from model.backend import Frames, Maps, padded


class CpuBackend(ABC):
    """A `Backend` of which `_logits` alone is missing; that runs in the engine's thread, after `prepare`."""

    device = torch.device("cpu")

    def __init__(self, multiple: int, prepare: Callable[[], None] | None = None) -> None:
        keep_memory()
        self._multiple = multiple
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine", initializer=prepare)

    @abstractmethod
    def _logits(self, batch: Tensor) -> Tensor: ...

    def logits(self, batch: Tensor) -> Tensor:
        return self._executor.submit(self._logits, batch).result()

    def submit(self, frames: Frames) -> "Future[Maps]":
        return self._executor.submit(self._probabilities, frames)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    @torch.inference_mode()
    def _probabilities(self, frames: Frames) -> Maps:
        height, width = frames.shape[1:3]
        image = padded(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255, self._multiple)
        maps: Maps = self._logits(image)[:, :, :height, :width].sigmoid().numpy()
        return maps
