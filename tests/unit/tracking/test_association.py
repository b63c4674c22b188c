"""Association: of all possible assignments that of least cost, found among the pairs that the gates leave."""

import math
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tracking.association import Places, assign, detected_places, measurement_std, selected

GATE, CAP_PX, RATIO = 13.8, 60.0, 3.0


def places(rng: np.random.Generator, count: int, extent_px: float) -> Places:
    variance, apparent = rng.uniform(0.5, 30, count), rng.uniform(2, 20, count)
    return Places(rng.uniform(0, extent_px, count), rng.uniform(0, extent_px, count), variance, apparent)


def cost(tracks: Places, detections: Places, i: int, j: int) -> float | None:
    """Return the cost of a pair, written out; None: not possible."""
    distance = math.hypot(detections.x[j] - tracks.x[i], detections.y[j] - tracks.y[i])
    innovation = tracks.variance[i] + detections.variance[j]
    ratio = abs(math.log(detections.apparent_px[j] / tracks.apparent_px[i]))
    if distance**2 / innovation > GATE or distance > CAP_PX or ratio > math.log(RATIO):
        return None
    return distance**2 / innovation + math.log(innovation**2) + (ratio / 0.4) ** 2


def best(tracks: Places, detections: Places) -> tuple[int, float]:
    """Return the largest number of pairs and their least cost, of all assignments there are."""
    count = len(tracks.x)
    choices = [*range(len(detections.x)), *[-1] * count]
    found = []
    for chosen in set(permutations(choices, count)):
        costs = [cost(tracks, detections, i, j) for i, j in enumerate(chosen) if j >= 0]
        if None not in costs:
            found.append((-len(costs), sum(one for one in costs if one is not None)))
    number, least = min(found)
    return -number, least


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 3), st.sampled_from([8.0, 30.0, 90.0]))
def test_no_assignment_has_more_pairs_or_as_many_at_less_cost(seed: int, tracks: int, detected: int, extent: float):
    rng = np.random.default_rng(seed)
    ours, theirs = places(rng, tracks, extent), places(rng, detected, extent)
    matched = assign(ours, theirs, GATE, np.full(tracks, CAP_PX), RATIO)
    costs = [cost(ours, theirs, i, j) for i, j in matched]
    assert None not in costs
    assert len({i for i, _ in matched}) == len({j for _, j in matched}) == len(matched)
    number, least = best(ours, theirs)
    assert len(matched) == number and sum(one for one in costs if one is not None) <= least + 1e-9


def test_the_place_of_a_box_is_its_middle_and_as_exact_as_it_is_small() -> None:
    found = detected_places(np.array([[10, 20, 14, 36], [5, 5, 5, 5]], np.float32))
    assert found.x.tolist() == [12, 5] and found.y.tolist() == [28, 5]
    assert found.apparent_px.tolist() == [8, 1]
    np.testing.assert_allclose(found.variance, [measurement_std(8) ** 2, measurement_std(1) ** 2])
    assert selected(found, [1]).x.tolist() == [5] and len(selected(found, []).x) == 0
