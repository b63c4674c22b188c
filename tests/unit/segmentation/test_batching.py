"""When a busy device receives its next batch."""

import pytest

from pipeline.segmentation.batching import BatchingPolicy


@pytest.fixture
def policy() -> BatchingPolicy:
    policy = BatchingPolicy(objective_s=0.5, max_batch_size=4)
    policy.executed(0.040)
    return policy


def test_an_idle_device_never_waits(policy: BatchingPolicy):
    assert policy.wait_s(in_flight=0, waiting=1, expected=8, running_s=0.0, oldest_age_s=0.01) == 0


def test_a_busy_one_waits_until_it_is_expected_to_be_free(policy: BatchingPolicy):
    assert policy.wait_s(1, 1, 8, running_s=0.010, oldest_age_s=0.01) == pytest.approx(0.030)
    assert policy.wait_s(1, 1, 8, running_s=0.050, oldest_age_s=0.01) == 0


@pytest.mark.parametrize(("waiting", "expected"), [(4, 8), (1, 0)])
def test_it_does_not_wait_for_what_cannot_come(policy: BatchingPolicy, waiting: int, expected: int):
    assert policy.wait_s(1, waiting, expected, running_s=0.0, oldest_age_s=0.01) == 0


def test_the_objective_is_worth_more_than_a_fuller_batch(policy: BatchingPolicy):
    assert policy.wait_s(1, 1, 8, running_s=0.0, oldest_age_s=0.200) == pytest.approx(0.010)
    assert policy.wait_s(1, 1, 8, running_s=0.0, oldest_age_s=0.300) == 0


def test_the_time_of_a_batch_is_followed(policy: BatchingPolicy):
    for _ in range(50):
        policy.executed(0.010)
    assert policy.wait_s(1, 1, 8, running_s=0.0, oldest_age_s=0.0) == pytest.approx(0.010, rel=0.01)
