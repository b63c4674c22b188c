"""Images of more than 8 bits, as thermal cameras make them, in 8 bits; the same for cameras, recordings and training.

In: counts or temperatures (H, W) of any type of number, of which a scene fills a small part of the range.  Out: (H, W)
uint8 whose black and white are percentiles of them, smoothed over time.  Pure: time comes with the image.
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
# The same where the unit is not known, counts or degrees: in differences between neighbours, typical and smallest ones.
LEAST_SPAN_IN_NOISE, LEAST_SPAN_IN_STEPS = 24, 16
SMOOTHING_S = 1.0
SAMPLED = 2  # every second pixel of every second row tells as much
LEVELS = 1 << 16
MAX_VALUE = 1e30  # what is beyond marks a pixel without a value

Counts = NDArray[np.uint16]
Values = NDArray[np.float64]


class AutomaticGainControl:
    """Of one source, whose images come in the order of their times."""

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None
        self._last_s = 0.0

    def __call__(self, image: NDArray[Any], time_s: float = 0.0) -> NDArray[np.uint8]:
        """Images of 8 unsigned bits stay as they are."""
        if image.dtype == np.uint8:
            return image
        if image.dtype == np.uint16:
            darkest, gain = self._smoothed(*_counts_range(image), time_s)
            levels = (np.arange(LEVELS, dtype=np.float32) - darkest) * gain
            shown: NDArray[np.uint8] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)[image]
            return shown
        values = _valid(image)
        darkest, gain = self._smoothed(*_values_range(values, image.dtype), time_s)
        return np.clip(np.rint((values - darkest) * gain), 0, 255).astype(np.uint8)

    def _smoothed(self, darkest: float, brightest: float, time_s: float) -> tuple[float, float]:
        """Return the value that becomes black, and the grey levels for each unit above it."""
        if self._range is not None and darkest <= self._range[1] and brightest >= self._range[0]:
            kept = math.exp(-max(0.0, time_s - self._last_s) / SMOOTHING_S)
            darkest += kept * (self._range[0] - darkest)
            brightest += kept * (self._range[1] - brightest)
        # Otherwise it is the first image, or nothing of this one would be seen: the camera has calibrated itself.
        self._range, self._last_s = (darkest, brightest), time_s
        return darkest, 255 / (brightest - darkest)


def _counts_range(counts: Counts) -> tuple[float, float]:
    """Return the percentiles, at least LEAST_SPAN apart."""
    sums = np.cumsum(np.bincount(counts[::SAMPLED, ::SAMPLED].ravel(), minlength=LEVELS))
    darkest, brightest = (float(np.searchsorted(sums, share * sums[-1])) for share in (DARKEST, BRIGHTEST))
    return _widened(darkest, brightest, LEAST_SPAN)


def _values_range(values: Values, kind: np.dtype[Any]) -> tuple[float, float]:
    sampled = values[::SAMPLED, ::SAMPLED]
    darkest, brightest = map(float, np.quantile(sampled, (DARKEST, BRIGHTEST), method="inverted_cdf"))
    return _widened(darkest, brightest, LEAST_SPAN if kind.kind == "u" else _least_span(values[::SAMPLED]))


def _widened(darkest: float, brightest: float, least_span: float) -> tuple[float, float]:
    missing = max(0.0, least_span - (brightest - darkest)) / 2
    return darkest - missing, brightest + missing


def _least_span(rows: Values) -> float:
    """In the unit of the values, above their noise and above what they are rounded to."""
    differences = np.abs(np.diff(rows, axis=1))
    steps = differences[differences > 0]
    if not steps.size:
        return 1.0  # nothing is to be seen, whatever the span
    return float(max(LEAST_SPAN_IN_NOISE * np.median(differences), LEAST_SPAN_IN_STEPS * steps.min()))


def _valid(image: NDArray[Any]) -> Values:
    """Pixels without a value (NaN, infinite) have that of a neighbour in their row, or the median."""
    values = image.astype(np.float64)
    missing = ~(np.abs(values) <= MAX_VALUE)
    if missing.any():
        middle = float(np.median(values[~missing])) if not missing.all() else 0.0
        values[missing] = np.nan
        values = _filled(_filled(values)[:, ::-1])[:, ::-1]
        values[np.isnan(values)] = middle
    return values


def _filled(values: Values) -> Values:
    """Let each NaN have the value before it in its row; those at the beginning stay."""
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(values.shape[1])), axis=1)
    return np.where(last < 0, np.nan, np.take_along_axis(values, np.maximum(last, 0), axis=1))
