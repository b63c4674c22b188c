"""What every engine provides behind `Engine`, and the part that all of them share.

Frames enter as uint8 RGB (N, H, W, 3) of any size and are padded by mirroring to the network's multiple; maps leave at
the frames' own size.
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
    """Thread-safe; batches are begun in the order of submission."""

    kind: str
    device: torch.device
    precision: str
    at_once: int  # batches under way that keep the device busy; more would only wait

    def logits(self, batch: Tensor) -> Tensor:
        """float32 (N, C, H, W) in 0..1, sides multiples of the network's -> float32 logits, on the CPU."""
        ...

    def submit(self, frames: Frames) -> "Future[Maps]":
        """A Future of float32 probabilities (N, classes, H, W)."""
        ...

    def close(self) -> None: ...


def padded(image: Tensor, multiple: int) -> Tensor:
    """(N, C, H, W) enlarged to the right and below, to multiples of `multiple`."""
    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return image
    # Mirrored, as in training; a picture smaller than its margin can only be repeated at its edge.
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, below), mode=mode)
