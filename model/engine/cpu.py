"""The part that the CPU engines share: batches run in the engine's own threads."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from model.engine.backend import Frames, Maps, padded


class CpuBackend(ABC):
    """A `Backend` without its `_logits`, which runs in the engine's threads, each initialised by `prepare`."""

    device = torch.device("cpu")

    def __init__(self, multiple: int, prepare: Callable[[], None] | None = None, max_in_flight: int = 1) -> None:
        self._multiple = multiple
        self.max_in_flight = max_in_flight
        self._executor = ThreadPoolExecutor(max_in_flight, thread_name_prefix="engine", initializer=prepare)

    @abstractmethod
    def _logits(self, batch: Tensor) -> Tensor: ...

    def _map_logits(self, batch: Tensor) -> Tensor:
        """Return the logits that `submit` makes maps of."""
        return self._logits(batch)

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        return self._executor.submit(self._logits, batch).result()

    def submit(self, frames: Frames) -> "Future[Maps]":
        """See `Backend.submit`."""
        return self._executor.submit(self._probabilities, frames)

    def close(self) -> None:
        """Finish the batches in flight, cancel the queued ones."""
        self._executor.shutdown(cancel_futures=True)

    @torch.inference_mode()
    def _probabilities(self, frames: Frames) -> Maps:
        height, width = frames.shape[1:3]
        image = padded(torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(255), self._multiple)
        maps: Maps = self._map_logits(image)[:, :, :height, :width].sigmoid_().numpy()
        return maps
