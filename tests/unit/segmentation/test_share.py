"""The share of pixels that the network looks at follows the load: down before frames are lost, and up again."""

import pytest

from pipeline.config.models import MIN_SHARE
from pipeline.segmentation.share import HIGH_AGE, LOW_AGE, ShareControl

OBJECTIVE_S = 0.5


class Site:
    """A worker with a queue: frames arrive at a rate, and take a fixed time and one that grows with the share."""

    def __init__(self, fps: float, whole_s: float, fixed_s: float) -> None:
        self.fps, self.whole_s, self.fixed_s = fps, whole_s, fixed_s
        self.control = ShareControl(OBJECTIVE_S)
        self.now_s = 0.0
        self.number = 0

    def run(self, seconds: float) -> float:
        """Return the greatest age of a frame."""
        oldest_s, end_s = 0.0, self.now_s + seconds
        while self.now_s < end_s:
            received_s = self.number / self.fps
            self.now_s = max(self.now_s, received_s)
            age_s = self.now_s - received_s
            oldest_s = max(oldest_s, age_s)
            self.now_s += self.fixed_s + self.control.update(age_s, self.now_s) * self.whole_s
            self.number += 1
        return oldest_s


def test_whole_frames_stay_whole_where_the_machine_keeps_up():
    site = Site(fps=25, whole_s=0.030, fixed_s=0.005)
    site.run(20)
    assert site.control.share == 1


@pytest.mark.parametrize("cameras", [2, 4, 6])
def test_an_overloaded_machine_settles_where_frames_are_young_and_most_of_it_is_used(cameras: int):
    site = Site(fps=25 * cameras, whole_s=0.060, fixed_s=0.005)
    site.run(10)
    settled_s = site.run(60)
    assert settled_s < 0.25, "the age at which live frames are dropped"
    possible = (1 / site.fps - site.fixed_s) / site.whole_s
    assert 0.6 * possible < site.control.share < 1.4 * possible


def test_it_recovers_when_the_load_ends():
    site = Site(fps=100, whole_s=0.060, fixed_s=0.005)
    site.run(20)
    assert site.control.share < 0.2
    site.whole_s = 0.004
    site.run(20)
    assert site.control.share == 1


def test_it_never_ends_where_even_nothing_is_too_much():
    site = Site(fps=100, whole_s=0.060, fixed_s=0.02)
    site.run(20)
    assert site.control.share == MIN_SHARE


def test_a_fixed_share_is_kept():
    control = ShareControl(OBJECTIVE_S, fixed=0.3)
    assert [control.update(age_s, now_s) for now_s, age_s in enumerate([0, 1, 5, 0])] == [0.3] * 4


def test_one_late_frame_costs_a_step_and_ages_between_the_limits_nothing():
    control = ShareControl(OBJECTIVE_S)
    control.update(0, 0)
    assert control.update(1.1 * HIGH_AGE * OBJECTIVE_S, 1) == pytest.approx(0.85)
    between_s = (HIGH_AGE + LOW_AGE) / 2 * OBJECTIVE_S
    assert control.update(between_s, 2) == pytest.approx(0.85)
    assert control.update(0, 3) == pytest.approx(0.85 * 1.05)
