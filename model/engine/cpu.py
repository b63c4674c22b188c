"""What the engines on a processor share: batches in threads of the engine's own."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from model.engine.backend import Frames, Maps, padded


class CpuBackend(ABC):
    """A `Backend` of which `_logits` alone is missing; that runs in a thread of the engine's, after `prepare`."""

    device = torch.device("cpu")

    def __init__(self, multiple: int, prepare: Callable[[], None] | None = None, at_once: int = 1) -> None:
        self._multiple = multiple
        self.at_once = at_once
        self._executor = ThreadPoolExecutor(at_once, thread_name_prefix="engine", initializer=prepare)

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
        image = padded(torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(255), self._multiple)
        maps: Maps = self._logits(image)[:, :, :height, :width].sigmoid_().numpy()
        return maps
