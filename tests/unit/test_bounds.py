"""Exact bounds: published values, the definition by tail probabilities, and counts that cannot be."""

import math

import pytest
from scipy.stats import binom, poisson

from pipeline.bounds import clopper_pearson, poisson_rate


def test_known_values():
    assert clopper_pearson(20, 20) == (pytest.approx(0.832, abs=5e-4), 1.0)
    assert clopper_pearson(5, 30) == (pytest.approx(0.056, abs=5e-4), pytest.approx(0.347, abs=5e-4))
    assert poisson_rate(0, 15.0, 0.9)[1] == pytest.approx(0.2, abs=5e-4)  # one-sided 95%
    assert poisson_rate(10, 1.0) == (pytest.approx(4.795, abs=1e-3), pytest.approx(18.390, abs=1e-3))


@pytest.mark.parametrize(("successes", "trials"), [(1, 9), (4, 9), (8, 9), (50, 1000)])
def test_each_bound_leaves_its_tail_of_the_binomial_distribution(successes: int, trials: int):
    lower, upper = clopper_pearson(successes, trials, 0.9)
    assert binom.sf(successes - 1, trials, lower) == pytest.approx(0.05)
    assert binom.cdf(successes, trials, upper) == pytest.approx(0.05)


@pytest.mark.parametrize("events", [1, 3, 40])
def test_each_bound_leaves_its_tail_of_the_poisson_distribution(events: int):
    lower, upper = (8.0 * rate for rate in poisson_rate(events, 8.0))
    assert poisson.sf(events - 1, lower) == pytest.approx(0.025)
    assert poisson.cdf(events, upper) == pytest.approx(0.025)


def test_nothing_observed_says_nothing():
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert poisson_rate(0, 0.0) == (0.0, math.inf)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="3 of 2; must be 0 <= successes <= trials"):
        clopper_pearson(3, 2)
    with pytest.raises(ValueError, match="-1 events"):
        poisson_rate(-1, 1.0)
    with pytest.raises(ValueError, match=r"confidence 1\.5"):
        poisson_rate(1, 1.0, 1.5)
