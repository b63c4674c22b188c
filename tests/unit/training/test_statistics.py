"""Statistics against worked values of textbooks, and against definitions written out."""

from itertools import product
from math import isclose, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from training.evaluation.statistics import cohen_d_paired, cohen_d_pooled, holm, paired_test, spread

# Student (1908): hours of sleep gained with two drugs by ten patients; t = 4.0621 with 9 degrees, p = 0.00283.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_students_sleep():
    test = paired_test(SECOND, FIRST)
    assert test.pairs == 10
    assert isclose(test.difference, 1.58)
    assert test.t_p is not None and isclose(test.t_p, 0.002833, abs_tol=1e-6)
    assert test.d_paired is not None and isclose(test.d_paired, 4.0621 / sqrt(10), abs_tol=1e-4)
    assert test.d_pooled is not None and isclose(test.d_pooled, 0.8321, abs_tol=1e-3)  # 1.58 / 1.8989
    mirrored = paired_test(FIRST, SECOND)
    assert mirrored.t_p == test.t_p and mirrored.d_paired == -test.d_paired


def test_darwins_maize():
    """Darwin's 15 pairs of plants (Fisher, 1935, The Design of Experiments): t = 2.148, p = 0.0497; the signed-rank
    sum of the negative differences is 24, p = 0.0413 by Wilcoxon's table of all signs."""
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    test = paired_test(differences, [0] * 15)
    assert test.t_p is not None and isclose(test.t_p, 0.0497, abs_tol=1e-4)
    assert test.wilcoxon_p is not None and isclose(test.wilcoxon_p, signed_rank_p(differences), rel_tol=1e-9)
    assert isclose(test.wilcoxon_p, 0.0413, abs_tol=1e-4)


def signed_rank_p(differences: list[float]) -> float:
    """Two-sided, by trying every assignment of signs to the ranks."""
    ranks = stats.rankdata(np.abs(differences))
    signs = np.array(list(product((0, 1), repeat=len(ranks))), np.int8)
    sums = signs @ ranks
    seen = ranks[np.array(differences) > 0].sum()
    extreme = max(seen, ranks.sum() - seen)
    return float(2 * (sums >= extreme).mean())


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=30))
def test_effect_sizes_agree_with_scipys_t(pairs: list[tuple[float, float]]):
    """t = d_z sqrt(n), and of two groups of equal size t = d sqrt(n / 2)."""
    a, b = np.array(pairs).T
    for ours, theirs, factor in (
        (cohen_d_paired(a, b), lambda: stats.ttest_rel(a, b), sqrt(len(a))),
        (cohen_d_pooled(a, b), lambda: stats.ttest_ind(a, b), sqrt(len(a) / 2)),
    ):
        if ours is not None and max(spread(a), spread(b), spread(a - b)) > 1e-3 and abs(ours) < 1e3:
            assert isclose(ours * factor, theirs().statistic, rel_tol=1e-6, abs_tol=1e-9)


def test_what_is_not_defined_is_none():
    same = paired_test([0.5, 0.25, 0.75], [0.5, 0.25, 0.75])
    assert (same.difference, same.t_p, same.wilcoxon_p, same.d_paired) == (0, None, None, None)
    assert same.d_pooled == 0
    shifted = paired_test([0.6, 0.35, 0.85], [0.5, 0.25, 0.75])  # by the same, but for rounding
    assert shifted.t_p is None and shifted.d_paired is None and shifted.wilcoxon_p is not None
    nearly = paired_test([1.0, 1.0, 1.0], [1e-8, 3e-9, 5e-10])  # as the epsilon leaves what is all wrong
    assert nearly.t_p is None and nearly.d_paired is None and nearly.difference == pytest.approx(1)
    one = paired_test([0.6], [0.5])
    assert (one.t_p, one.d_paired, one.d_pooled) == (None, None, None)


def test_three_pairs_cannot_be_significant_by_ranks():
    assert paired_test([0.9, 0.8, 0.7], [0.1, 0.2, 0.3]).wilcoxon_p == 0.25


@pytest.mark.parametrize("values", [([1.0, 2.0], [1.0]), ([], [])])
def test_values_that_do_not_pair(values: tuple[list[float], list[float]]):
    with pytest.raises(ValueError, match="one length"):
        paired_test(*values)


def test_holms_worked_example():
    """By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04 may not be below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_as_its_procedure_says(p_values: list[float], level: float):
    """Step down: reject the smallest while p <= level / (those left), then stop."""
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    adjusted = holm(p_values)
    assert {index for index, p in enumerate(adjusted) if p is not None and p <= level} == rejected
