"""Bounds of rates, against values from tables and arithmetic."""

import numpy as np
import pytest

from training.evaluation.bounds import difference_bounds, proportion_bounds, rate_at_most, rate_bounds, ratio_bounds


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 20, 0.0, 0.1684),
        (20, 20, 0.8316, 1.0),
        (5, 30, 0.0564, 0.3472),
        (1, 1, 0.025, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_proportions(successes: int, trials: int, low: float, high: float):
    assert proportion_bounds(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_proportions_of_more_trials_are_closer():
    few, many = proportion_bounds(5, 30), proportion_bounds(50, 300)
    assert few.low < many.low < 1 / 6 < many.high < few.high


def test_rates():
    assert rate_at_most(0, 15.0) == pytest.approx(0.2, abs=5e-4)  # three over the hours
    assert rate_bounds(0, 1.0) == pytest.approx((0.0, 3.689), abs=5e-4)
    assert rate_bounds(10, 1.0) == pytest.approx((4.795, 18.390), abs=5e-4)
    assert rate_bounds(10, 2.0) == pytest.approx((2.398, 9.195), abs=5e-4)


@pytest.mark.parametrize(("events", "exposure"), [(-1, 1.0), (0, 0.0)])
def test_what_is_no_count_is_rejected(events: int, exposure: float):
    with pytest.raises(ValueError, match="must be 0 or more in more than 0"):
        rate_bounds(events, exposure)
    with pytest.raises(ValueError, match="3 of 2: must be 0 to 2"):
        proportion_bounds(3, 2)


def test_the_bootstrap_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        wholes = random.integers(50, 300, 40)
        parts = wholes * random.beta(8, 2, 40)  # recordings differ: the mean is .8
        bounds = ratio_bounds(list(zip(parts, wholes, strict=True)))
        assert bounds is not None
        hits += bounds.low <= 0.8 <= bounds.high
    assert 0.90 <= hits / 200 <= 0.99


def test_pairing_removes_what_recordings_have_in_common():
    parts = np.random.default_rng(0).uniform(20, 90, 30)
    before, after = [(part, 100.0) for part in parts], [(part + 5, 100.0) for part in parts]
    single, paired = ratio_bounds(after), difference_bounds(before, after)
    assert single is not None and single.high - single.low > 0.1
    assert paired == pytest.approx((0.05, 0.05))


def test_where_nothing_can_be_resampled_there_are_no_bounds():
    assert ratio_bounds([(1, 2)]) is None and difference_bounds([(1, 2)], [(2, 2)]) is None
    assert ratio_bounds([(0, 0)] * 3) is None
