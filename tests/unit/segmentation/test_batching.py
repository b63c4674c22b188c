"""When a busy device is given its next batch."""

import pytest

from pipeline.segmentation.batching import BatchWindow


@pytest.fixture
def window() -> BatchWindow:
    window = BatchWindow(objective_s=0.5, most=4)
    window.done(0.040)
    return window


def test_an_idle_device_never_waits(window: BatchWindow):
    assert window.wait_s(flying=0, waiting=1, expected=8, running_s=0.0, oldest_age_s=0.01) == 0


def test_a_busy_one_waits_until_it_is_expected_to_be_free(window: BatchWindow):
    assert window.wait_s(1, 1, 8, running_s=0.010, oldest_age_s=0.01) == pytest.approx(0.030)
    assert window.wait_s(1, 1, 8, running_s=0.050, oldest_age_s=0.01) == 0


@pytest.mark.parametrize(("waiting", "expected"), [(4, 8), (1, 0)])
def test_it_does_not_wait_for_what_cannot_come(window: BatchWindow, waiting: int, expected: int):
    assert window.wait_s(1, waiting, expected, running_s=0.0, oldest_age_s=0.01) == 0


def test_the_objective_is_worth_more_than_a_fuller_batch(window: BatchWindow):
    assert window.wait_s(1, 1, 8, running_s=0.0, oldest_age_s=0.200) == pytest.approx(0.010)
    assert window.wait_s(1, 1, 8, running_s=0.0, oldest_age_s=0.300) == 0


def test_the_time_of_a_batch_is_followed(window: BatchWindow):
    for _ in range(50):
        window.done(0.010)
    assert window.wait_s(1, 1, 8, running_s=0.0, oldest_age_s=0.0) == pytest.approx(0.010, rel=0.01)
