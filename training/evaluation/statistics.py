"""Statistics of comparisons: paired tests, effect sizes, correction for multiple comparisons.  Pure.

In: values of two networks, paired by image or by seed.  Out: a `PairedTest`; None where a value is undefined.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedTest:
    """Paired tests of a - b; both p values are two-sided.

    `t_p`: paired t-test (Student, 1908).  `wilcoxon_p`: signed-rank test (Wilcoxon, 1945, doi 10.2307/3001968), pairs
    without a difference excluded; exact for few pairs without ties: of 3 pairs it cannot be less than 0.25.
    """

    pairs: int
    difference: float  # mean
    t_p: float | None
    wilcoxon_p: float | None
    d_paired: float | None
    d_pooled: float | None


def paired_test(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> PairedTest:
    """Return the tests; raise ValueError for values that do not pair."""
    from scipy import stats

    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            f"values of shape {first.shape} and {second.shape}: expected two rows of one length, 1 or more"
        )
    difference = first - second
    varies = len(first) > 1 and spread(difference) > 0
    return PairedTest(
        pairs=len(first),
        difference=float(difference.mean()),
        t_p=float(stats.ttest_rel(first, second).pvalue) if varies else None,
        wilcoxon_p=float(stats.wilcoxon(difference).pvalue) if difference.any() else None,
        d_paired=cohen_d_paired(first, second),
        d_pooled=cohen_d_pooled(first, second),
    )


def cohen_d_paired(a: Floats, b: Floats) -> float | None:
    """Return the mean difference over its deviation, d_z (Lakens, 2013, doi 10.3389/fpsyg.2013.00863, equation 6)."""
    deviation = spread(a - b)
    return float((a - b).mean()) / deviation if deviation else None


def cohen_d_pooled(a: Floats, b: Floats) -> float | None:
    """Return the difference of the means over the root of the mean variance.

    Cohen, 1988, "Statistical power analysis for the behavioral sciences", 2nd edition, equation 2.5.1 (equal numbers).
    """
    deviation = float(np.hypot(spread(a), spread(b)) / np.sqrt(2))
    return float(a.mean() - b.mean()) / deviation if deviation else None


def spread(values: Sequence[float] | Floats) -> float:
    """Return the standard deviation of a sample (n - 1); 0 for a single value.

    Also 0 where values differ by less than a millionth, the effect of the metrics' epsilon alone.
    """
    row = np.asarray(values, np.float64)
    deviation = float(row.std(ddof=1)) if len(row) > 1 else 0.0
    return deviation if deviation > 1e-6 * float(np.abs(row).max()) else 0.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return adjusted p values of a family of tests; undefined ones stay undefined and are not counted.

    Holm, 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = highest
    return adjusted
