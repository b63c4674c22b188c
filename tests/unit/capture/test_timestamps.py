"""Times of pictures whose time stamps are missing, jump, wrap, stand still or run at another speed."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.timestamps import LEAD_S, MIN_STEP_S, TimestampMapper

PERIOD_S = 0.04
TICK_S = Fraction(1, 90_000)
stamps = st.one_of(st.none(), st.integers(-(2**33), 2**33).map(lambda ticks: ticks * TICK_S))


def times(stamped_s: list[Fraction | None], received_s: list[float]) -> list[float]:
    clock = TimestampMapper(PERIOD_S)
    return [clock.live(stamp_s, at_s) for stamp_s, at_s in zip(stamped_s, received_s, strict=True)]


def steady(count: int, start: int = 0, period_s: Fraction = Fraction(1, 25)) -> list[Fraction | None]:
    return [start * TICK_S + number * period_s for number in range(count)]


@given(st.lists(st.tuples(stamps, st.floats(0, 20)), min_size=1, max_size=60))
def test_a_cameras_times_rise_and_do_not_run_ahead(pictures: list[tuple[Fraction | None, float]]) -> None:
    received_s = [1000.0]
    for _, waited_s in pictures[1:]:
        received_s.append(received_s[-1] + waited_s)
    found = times([stamp_s for stamp_s, _ in pictures], received_s)
    assert found[0] == 0
    assert all(earlier < later for earlier, later in pairwise(found))
    burst_s = MIN_STEP_S * len(found)  # of pictures that were received at once
    assert all(time_s <= at_s - 1000 + LEAD_S + burst_s for time_s, at_s in zip(found, received_s, strict=True))


@given(st.lists(stamps, min_size=1, max_size=60))
def test_a_recordings_times_rise(stamped_s: list[Fraction | None]) -> None:
    clock = TimestampMapper(PERIOD_S)
    assert all(earlier < later for earlier, later in pairwise(clock.recorded(stamp_s) for stamp_s in stamped_s))


def test_good_stamps_are_kept_whatever_the_network_does() -> None:
    late_s = [0.0, 0.3, 0.3, 0.3, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0]  # two bursts after pauses
    found = times(steady(10, start=12345), [50 + at_s for at_s in late_s])
    assert found == pytest.approx([PERIOD_S * number for number in range(10)])


@pytest.mark.parametrize(
    "jump_s",
    [3600, -3600, 10, -0.5, Fraction(2**33, 90_000), -Fraction(2**32, 90_000)],
    ids=lambda jump_s: f"{float(jump_s):.1f}",
)
def test_after_a_jump_time_goes_on_as_it_passes(jump_s: Fraction) -> None:
    stamped_s = [
        stamp_s + (jump_s if number >= 10 else 0) for number, stamp_s in enumerate(steady(40)) if stamp_s is not None
    ]
    found = times(list(stamped_s), [PERIOD_S * number for number in range(40)])
    assert found == pytest.approx([PERIOD_S * number for number in range(40)])


@pytest.mark.parametrize("stamped_s", [[None] * 100, [Fraction(7)] * 100], ids=["missing", "standing still"])
def test_without_stamps_a_camera_has_the_times_of_reception(stamped_s: list[Fraction | None]) -> None:
    assert times(stamped_s, [3 + 0.1 * number for number in range(100)])[-1] == pytest.approx(9.9)


def test_a_clock_that_runs_twice_as_fast_gains_no_more_than_the_bound() -> None:
    found = times(steady(1000, period_s=Fraction(2, 25)), [PERIOD_S * number for number in range(1000)])
    assert found[-1] == pytest.approx(999 * PERIOD_S + LEAD_S, abs=2 * PERIOD_S)


def test_a_recordings_gaps_stay() -> None:
    clock = TimestampMapper(PERIOD_S)
    assert [clock.recorded(Fraction(at_s)) for at_s in (100, 101, 4000)] == [0, 1, 3900]
