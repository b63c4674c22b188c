"""The body of the judge (`model.judge`) through the native library: several times as fast as torch, in float32."""

import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from model.errors import EngineError
from model.native.library import NativeError, library

SIDE_PX = 48  # of the chips for which it is compiled
FEATURES = 256


class NativeBody:
    """Computes a judge's pooled features; it copies the weights.

    Args:
        convolutions: the judge's, with BatchNorm and differences folded.

    Raises:
        NativeError: The library is not available, or it cannot run this judge.
    """

    def __init__(self, convolutions: Sequence[nn.Conv2d]) -> None:
        self._library = library()
        self._frames = convolutions[0].in_channels
        parts = [part.detach().float().numpy().ravel() for each in convolutions for part in each.parameters()]
        weights = np.ascontiguousarray(np.concatenate(parts), np.float32)
        self._handle = self._library.dasnet_judge_create(weights.ctypes.data, weights.size, self._frames)
        if not self._handle:
            raise NativeError("the judge is of another shape than the native engine's")
        weakref.finalize(self, self._library.dasnet_judge_destroy, self._handle)

    def accepts(self, chips: NDArray[np.uint8]) -> bool:
        """Return whether it is compiled for chips of this shape."""
        return chips.shape[1:] == (self._frames, SIDE_PX, SIDE_PX)

    def __call__(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features (N, FEATURES) of chips (N, T, S, S), uint8, which are normalised here."""
        chips = np.ascontiguousarray(chips)
        features = np.empty((len(chips), FEATURES), np.float32)
        if self._library.dasnet_judge_run(self._handle, chips.ctypes.data, len(chips), features.ctypes.data):
            raise EngineError(f"{len(chips)} chips: out of memory")
        return features
