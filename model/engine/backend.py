"""The interface of the engines behind `model.engine.engine.Engine`, and the padding that they share.

In: uint8 RGB frames (N, H, W, 3) of any size, reflection-padded to the network's multiple.  Out: float32 probability
maps (N, classes, H, W) at the frames' own size.
"""

from concurrent.futures import Future
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Frames = NDArray[np.uint8]
Maps = NDArray[np.float32]


class Backend(Protocol):
    """One way to run a network.  Thread-safe; batches start in the order of submission.

    max_in_flight: how many submitted batches keep the device busy; more would only be queued.
    """

    kind: str
    device: torch.device
    precision: str
    max_in_flight: int

    def logits(self, batch: Tensor) -> Tensor:
        """Return float32 logits, on the CPU, of float32 images (N, C, H, W) in 0..1 with padded sides."""
        ...

    def submit(self, frames: Frames) -> "Future[Maps]":
        """Return a Future of float32 probabilities (N, classes, H, W)."""
        ...

    def close(self) -> None:
        """Finish the batches in flight and release the engine's resources."""
        ...


def padded(image: Tensor, multiple: int) -> Tensor:
    """Return images (N, C, H, W) padded on the right and at the bottom to multiples of `multiple`."""
    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return image
    # Reflected, as in training; an image smaller than its padding can only repeat its edge.
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, below), mode=mode)
