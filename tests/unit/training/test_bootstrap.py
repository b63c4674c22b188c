"""Bootstrap bounds over recordings."""

import numpy as np
import pytest

from training.evaluation.bootstrap import difference_bounds, ratio_bounds


def test_the_bootstrap_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        wholes = random.integers(50, 300, 40)
        parts = wholes * random.beta(8, 2, 40)  # recordings differ: the mean is .8
        bounds = ratio_bounds(list(zip(parts, wholes, strict=True)))
        assert bounds is not None
        hits += bounds[0] <= 0.8 <= bounds[1]
    assert 0.90 <= hits / 200 <= 0.99


def test_pairing_removes_what_recordings_have_in_common():
    parts = np.random.default_rng(0).uniform(20, 90, 30)
    before, after = [(part, 100.0) for part in parts], [(part + 5 + n % 2, 100.0) for n, part in enumerate(parts)]
    single, paired = ratio_bounds(after), difference_bounds(before, after)
    assert single is not None and single[1] - single[0] > 0.1
    assert paired == pytest.approx((0.055, 0.055), abs=0.003)


def test_where_nothing_can_be_resampled_there_are_no_bounds():
    assert ratio_bounds([(1, 2)]) is None and difference_bounds([(1, 2)], [(2, 2)]) is None
    assert ratio_bounds([(0, 0)] * 3) is None
    assert ratio_bounds([(7, 7), (9, 9)]) is None  # all right in both: not a certainty of being right
