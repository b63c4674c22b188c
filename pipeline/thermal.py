"""Pictures of 10 to 16 bits, as thermal cameras make them, in 8 bits; the same for cameras, recordings and training.

In: counts (H, W) uint16, of which a scene fills a few hundred of 65,536.  Out: (H, W) uint8 whose black and white are
the percentiles of the counts, smoothed over time.  Pure: time comes with the picture.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

DARKEST, BRIGHTEST = (
    0.001,
    0.999,
)  # shares of the pixels: a small hot drone lies beyond, so the picture never follows it
LEAST_SPAN = 64  # counts from black to white: an even sky is not blown up to noise
SMOOTHING_S = 1.0
SAMPLED = 2  # every second pixel of every second row tells as much
LEVELS = 1 << 16

Counts = NDArray[np.uint16]


class GainControl:
    """Of one source, whose pictures come in the order of their times."""

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None
        self._last_s = 0.0

    def __call__(self, picture: NDArray[Any], time_s: float = 0.0) -> NDArray[np.uint8]:
        """Pictures of 8 bits stay as they are."""
        return self._mapped(picture, time_s) if picture.dtype == np.uint16 else np.asarray(picture, np.uint8)

    def _mapped(self, counts: Counts, time_s: float) -> NDArray[np.uint8]:
        darkest, brightest = _spread(counts)
        if self._range is not None and darkest <= self._range[1] and brightest >= self._range[0]:
            kept = math.exp(-max(0.0, time_s - self._last_s) / SMOOTHING_S)
            darkest += kept * (self._range[0] - darkest)
            brightest += kept * (self._range[1] - brightest)
        # Otherwise it is the first picture, or nothing of this one would be seen: the camera has calibrated itself.
        self._range, self._last_s = (darkest, brightest), time_s
        levels = (np.arange(LEVELS, dtype=np.float32) - darkest) * (255 / (brightest - darkest))
        shown: NDArray[np.uint8] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)[counts]
        return shown


def _spread(counts: Counts) -> tuple[float, float]:
    """Of all but the darkest and the brightest pixels, LEAST_SPAN apart at least."""
    sums = np.cumsum(np.bincount(counts[::SAMPLED, ::SAMPLED].ravel(), minlength=LEVELS))
    darkest, brightest = (float(np.searchsorted(sums, share * sums[-1])) for share in (DARKEST, BRIGHTEST))
    missing = max(0.0, LEAST_SPAN - (brightest - darkest)) / 2
    return darkest - missing, brightest + missing
