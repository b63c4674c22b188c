"""A camera's clock against this host's: offset and drift, from frames that are late at random."""

import random

import pytest

from pipeline.telemetry.clock_drift import MIN_OFFSETS, WINDOW_S, ClockDriftMonitor


def watched(clock: ClockDriftMonitor, seconds: float, offset_s: float, drift: float, start_s: float = 0.0) -> None:
    rng = random.Random(3)
    for frame in range(round(seconds * 25)):
        now_s = start_s + frame / 25
        clock.update(offset_s + drift * now_s + 0.002 + rng.expovariate(1 / 0.008), now_s)


@pytest.mark.parametrize("drift", [0.0, 40e-6, -200e-6])
def test_offset_and_drift_are_found_though_frames_are_late(drift: float):
    clock = ClockDriftMonitor()
    watched(clock, 300, 3.2, drift)
    assert clock.offset_s == pytest.approx(3.2 + 300 * drift + 0.002, abs=0.003)
    assert clock.drift == pytest.approx(drift, abs=5e-6)


def test_the_offset_is_known_at_once_and_the_drift_only_after_a_while():
    clock = ClockDriftMonitor()
    assert clock.offset_s is None and clock.drift is None
    clock.update(-1.5, 0.0)
    assert clock.offset_s == -1.5 and clock.drift is None
    watched(clock, WINDOW_S * (MIN_OFFSETS + 1), -1.5, 0.0)
    assert clock.drift is not None


@pytest.mark.parametrize("step_s", [5.0, -5.0])
def test_a_clock_that_is_set_begins_anew(step_s: float):
    clock = ClockDriftMonitor()
    watched(clock, 60, 0.0, 0.0)
    watched(clock, 10, step_s, 0.0, 60.0)
    assert clock.offset_s == pytest.approx(step_s, abs=0.01)
    assert clock.drift is None


def test_frames_that_are_late_for_a_moment_say_nothing_of_the_clock():
    clock = ClockDriftMonitor()
    watched(clock, 60, 3.2, 0.0)
    for frame in range(50):
        clock.update(3.2 + 2.0, 60 + frame / 25)  # the network stalls for two seconds
    assert clock.offset_s == pytest.approx(3.202, abs=0.003) and clock.drift is not None
    watched(clock, 20, 3.2, 0.0, 62.0)
    assert clock.offset_s == pytest.approx(3.202, abs=0.003) and clock.drift == pytest.approx(0.0, abs=50e-6)
