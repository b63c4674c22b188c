"""Bounds of measured rates: exact ones of proportions and counts, bootstrap over recordings for all else.  Pure.

Frames of one recording are alike, and so are recordings of one place and flight: where those make up a set, all of
these bounds are too narrow rather than too wide.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 4000
SEED = 1

Floats = NDArray[np.float64]
Ratios = Sequence[tuple[float, float]]  # part and whole of each recording


class Bounds(NamedTuple):
    """Two-sided confidence bounds."""

    low: float
    high: float


def proportion_bounds(successes: int, trials: int, level: float = LEVEL) -> Bounds:
    """Return the exact bounds of a proportion; 0 to 1 without a trial.

    Clopper and Pearson, 1934, doi 10.1093/biomet/26.4.404.  Raise ValueError unless 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials}: must be 0 to {trials}")
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Bounds(float(low), float(high))


def rate_bounds(events: int, exposure: float, level: float = LEVEL) -> Bounds:
    """Return the exact bounds of the rate of independent events per unit of exposure (time, say).

    Garwood, 1936, doi 10.1093/biomet/28.3-4.437.  Raise ValueError for negative events and an exposure of 0 or less.
    """
    tail = (1 - level) / 2
    high = rate_at_most(events, exposure, 1 - tail)
    return Bounds(float(stats.chi2.ppf(tail, 2 * events)) / 2 / exposure if events else 0.0, high)


def rate_at_most(events: int, exposure: float, level: float = LEVEL) -> float:
    """Return the one-sided upper bound of a rate: what may be claimed as "at most".

    Raise ValueError for negative events and an exposure of 0 or less.
    """
    if events < 0 or exposure <= 0:
        raise ValueError(f"{events} events in {exposure:g}: must be 0 or more in more than 0")
    return float(stats.chi2.ppf(level, 2 * events + 2)) / 2 / exposure


def ratio_bounds(ratios: Ratios, level: float = LEVEL) -> Bounds | None:
    """Return bootstrap bounds of a ratio of sums, with recordings drawn again (percentiles).

    Efron, 1979, doi 10.1214/aos/1176344552.  None for fewer than two recordings.
    """
    return _percentiles(_resampled(ratios), level) if len(ratios) > 1 else None


def difference_bounds(before: Ratios, after: Ratios, level: float = LEVEL) -> Bounds | None:
    """Return bootstrap bounds of a ratio of sums minus that of before, each for the same recordings in the same order.

    Paired: each resample draws the same recordings for both.  None for fewer than two recordings.
    """
    return _percentiles(_resampled(after) - _resampled(before), level) if len(before) > 1 else None


def _resampled(ratios: Ratios) -> Floats:
    """Return the ratios of the sums, (RESAMPLES,); the same recordings are drawn in every call of the same N."""
    count = len(ratios)
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    parts, wholes = (draws @ np.array(ratios, np.float64)).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(parts / wholes)


def _percentiles(values: Floats, level: float) -> Bounds | None:
    values = values[np.isfinite(values)]  # a resample may hold only recordings that have nothing to count
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Bounds(float(low), float(high))
