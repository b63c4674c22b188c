"""Automatic gain control: thermal images of more than 8 bits, mapped to 8; for cameras, recordings and training.

In: counts or temperatures (H, W) of any numeric type, of whose range a scene fills a small part.  Out: (H, W) uint8
whose black and white levels are percentiles, smoothed over time.  Pure: time comes with the image.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

DARKEST, BRIGHTEST = 0.001, 0.999  # quantiles; a small hot drone lies beyond them and does not change the gain
MIN_SPAN = 64  # counts from black to white, so that the noise of an even sky is not amplified
# The same in an unknown unit, counts or degrees: multiples of the median and of the smallest difference of neighbours.
MIN_SPAN_IN_NOISE, MIN_SPAN_IN_STEPS = 24, 16
SMOOTHING_S = 1.0
SAMPLING = 2  # every second pixel of every second row suffices
LEVELS = 1 << 16
MAX_VALUE = 1e30  # larger values mark pixels without a value

Counts = NDArray[np.uint16]
Values = NDArray[np.float64]


class AutomaticGainControl:
    """Maps the images of one source, in the order of their times."""

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None
        self._last_s = 0.0

    def __call__(self, image: NDArray[Any], time_s: float = 0.0) -> NDArray[np.uint8]:
        """Return the image in 8 bits; one of 8 unsigned bits unchanged."""
        if image.dtype == np.uint8:
            return image
        if image.dtype == np.uint16:
            darkest, gain = self._smoothed(*_counts_range(image), time_s)
            levels = (np.arange(LEVELS, dtype=np.float32) - darkest) * gain
            mapped: NDArray[np.uint8] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)[image]
            return mapped
        values = _valid(image)
        darkest, gain = self._smoothed(*_values_range(values, image.dtype), time_s)
        return np.clip(np.rint((values - darkest) * gain), 0, 255).astype(np.uint8)

    def _smoothed(self, darkest: float, brightest: float, time_s: float) -> tuple[float, float]:
        """Return the value of black, and the grey levels per unit above it."""
        if self._range is not None and darkest <= self._range[1] and brightest >= self._range[0]:
            kept = math.exp(-max(0.0, time_s - self._last_s) / SMOOTHING_S)
            darkest += kept * (self._range[0] - darkest)
            brightest += kept * (self._range[1] - brightest)
        # Otherwise it is the first image, or all of it is out of range: the camera has calibrated itself.
        self._range, self._last_s = (darkest, brightest), time_s
        return darkest, 255 / (brightest - darkest)


def _counts_range(counts: Counts) -> tuple[float, float]:
    """Return the percentiles, at least MIN_SPAN apart."""
    sums = np.cumsum(np.bincount(counts[::SAMPLING, ::SAMPLING].ravel(), minlength=LEVELS))
    darkest, brightest = (float(np.searchsorted(sums, share * sums[-1])) for share in (DARKEST, BRIGHTEST))
    return _widened(darkest, brightest, MIN_SPAN)


def _values_range(values: Values, kind: np.dtype[Any]) -> tuple[float, float]:
    sampled = values[::SAMPLING, ::SAMPLING]
    darkest, brightest = map(float, np.quantile(sampled, (DARKEST, BRIGHTEST), method="inverted_cdf"))
    return _widened(darkest, brightest, MIN_SPAN if kind.kind == "u" else _min_span(values[::SAMPLING]))


def _widened(darkest: float, brightest: float, min_span: float) -> tuple[float, float]:
    missing = max(0.0, min_span - (brightest - darkest)) / 2
    return darkest - missing, brightest + missing


def _min_span(rows: Values) -> float:
    """Return the smallest span in the unit of the values, above their noise and rounding."""
    differences = np.abs(np.diff(rows, axis=1))
    steps = differences[differences > 0]
    if not steps.size:
        return 1.0  # the image is uniform
    return float(max(MIN_SPAN_IN_NOISE * np.median(differences), MIN_SPAN_IN_STEPS * steps.min()))


def _valid(image: NDArray[Any]) -> Values:
    """Replace pixels without a value (NaN, infinite) by a neighbour in their row, or by the median."""
    values = image.astype(np.float64)
    missing = ~(np.abs(values) <= MAX_VALUE)
    if missing.any():
        middle = float(np.median(values[~missing])) if not missing.all() else 0.0
        values[missing] = np.nan
        values = _filled(_filled(values)[:, ::-1])[:, ::-1]
        values[np.isnan(values)] = middle
    return values


def _filled(values: Values) -> Values:
    """Replace each NaN by the value before it in its row; those at the start of a row stay."""
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(values.shape[1])), axis=1)
    return np.where(last < 0, np.nan, np.take_along_axis(values, np.maximum(last, 0), axis=1))
