"""Whether a picture that arrives shows anything: frozen, black and blown-out video is recognised.  Pure.

In: decoded pictures in their order.  Out: a Fault, or None.  One odd picture says nothing: a fault must last, and so
must its absence.  A thermal camera's shutter (a freeze of a second, a few times an hour) is no fault.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Cause

COLUMNS = 320  # at most so many are looked at, evenly spread, and as many rows as that gives
UNCHANGED_LEVELS = 3  # a still picture that is encoded again and again differs by so much
BLACK_LEVEL, WHITE_LEVEL = 24, 232  # nearly all of the picture below, or above
NEARLY_ALL = 0.995


@dataclass(frozen=True)
class ImageHealthSettings:
    frozen_s: float = 5.0
    saturated_s: float = 2.0
    clear_s: float = 1.0  # without a fault, until one is over


@dataclass(frozen=True)
class Fault:
    cause: Cause
    since_s: float  # presentation time of the first picture that had it


class ImageHealthMonitor:
    """One a session of a camera."""

    def __init__(self, settings: ImageHealthSettings | None = None) -> None:
        self._settings = settings or ImageHealthSettings()
        self._still: NDArray[np.int16] | None = None  # the first of the pictures that all look the same
        self._still_since_s = 0.0
        self._saturated_since_s: float | None = None
        self._faultless_since_s: float | None = None
        self._fault: Fault | None = None

    def update(self, pixels: NDArray[np.uint8], pts_s: float) -> Fault | None:
        """What is wrong as of this picture (H, W) or (H, W, 3), seen at `pts_s`."""
        step = -(-pixels.shape[1] // COLUMNS)
        seen = pixels[::step, ::step].astype(np.int16)
        still = self._is_still(seen)
        if not still:
            self._still, self._still_since_s = seen, pts_s
        if not is_saturated(seen):
            self._saturated_since_s = None
        elif self._saturated_since_s is None:
            self._saturated_since_s = pts_s
        found = self._found(pts_s)
        if found is not None:
            self._fault = found
        if still or self._saturated_since_s is not None:
            self._faultless_since_s = None
        elif self._fault is not None:
            if self._faultless_since_s is None:
                self._faultless_since_s = pts_s
            if pts_s - self._faultless_since_s >= self._settings.clear_s:
                self._fault = None
        return self._fault

    def _is_still(self, seen: NDArray[np.int16]) -> bool:
        still = self._still
        return still is not None and still.shape == seen.shape and int(np.abs(seen - still).max()) <= UNCHANGED_LEVELS

    def _found(self, pts_s: float) -> Fault | None:
        """Saturated first: a black picture does not change either."""
        since_s = self._saturated_since_s
        if since_s is not None and pts_s - since_s >= self._settings.saturated_s:
            return Fault(Cause.SATURATED, since_s)
        if pts_s - self._still_since_s >= self._settings.frozen_s:
            return Fault(Cause.FROZEN, self._still_since_s)
        return None


def is_saturated(seen: NDArray[np.int16]) -> bool:
    """Nearly all of the picture is black, or nearly all is white."""
    least = NEARLY_ALL * seen.size
    return bool(np.count_nonzero(seen < BLACK_LEVEL) >= least or np.count_nonzero(seen > WHITE_LEVEL) >= least)
