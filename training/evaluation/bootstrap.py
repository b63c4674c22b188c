"""Bootstrap bounds of ratios of sums over recordings.  Pure.

`pipeline.bounds` has exact bounds, for proportions and rates of independent events.  Here, recordings are drawn again,
not frames, which are alike within one.  Recordings of one place and flight are alike, too: where a set holds several of
those, the bounds are too narrow rather than too wide.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 4000
SEED = 1
LEAST_WIDTH = 1e-9  # of bounds: where recordings agree, resampling cannot say how others would differ

Ratios = Sequence[tuple[float, float]]  # part and whole of each recording
Bounds = tuple[float, float]


def ratio_bounds(ratios: Ratios, confidence: float = CONFIDENCE) -> Bounds | None:
    """Return two-sided bounds of the ratio of the sums: percentiles over resamples.

    Efron, 1979, doi 10.1214/aos/1176344552.  None for fewer than two recordings, and for
    recordings that agree, all of them at 1 say.
    """
    return _percentiles(_resampled(ratios), confidence) if len(ratios) > 1 else None


def difference_bounds(before: Ratios, after: Ratios, confidence: float = CONFIDENCE) -> Bounds | None:
    """Return bounds of the ratio of the sums after, minus that before, for the same recordings in the same order.

    Paired: each resample draws the same recordings for both.  None as in `ratio_bounds`.
    """
    return _percentiles(_resampled(after) - _resampled(before), confidence) if len(before) > 1 else None


def _resampled(ratios: Ratios) -> NDArray[np.float64]:
    """Return the ratios of the sums, (RESAMPLES,); every call with as many recordings draws the same ones."""
    count = len(ratios)
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    parts, wholes = (draws @ np.array(ratios, np.float64)).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(parts / wholes)


def _percentiles(values: NDArray[np.float64], confidence: float) -> Bounds | None:
    values = values[np.isfinite(values)]  # a resample may hold only recordings that have nothing to count
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return (float(low), float(high)) if high - low > LEAST_WIDTH else None
