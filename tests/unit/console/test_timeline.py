"""Time lines from the events of a camera's state."""

import pytest
from support.events import START_NS, event

from pipeline.console.timeline import camera_timeline
from pipeline.types import Cause, Event, EventKind

UP, DOWN, BLIND = EventKind.CAMERA_UP, EventKind.CAMERA_DOWN, EventKind.CAMERA_BLIND
S = 1_000_000_000
DAY_NS = 86_400 * S


def at(second: float, kind: EventKind, cause: Cause | None = None) -> Event:
    return event(kind, time_utc_ns=START_NS + round(second * S), cause=cause)


def line(*states: Event) -> tuple[list[tuple[int, int, str]], list[tuple[int, int, bool]]]:
    """What is drawn, from and to which second and why; the lines: since when, how often, whether it goes on."""
    made = camera_timeline("north", [], states, START_NS, START_NS + DAY_NS)
    drawn = [((b.since_utc_ns - START_NS) // S, (b.until_utc_ns - START_NS) // S, b.cause.value) for b in made.blind]
    return drawn, [((s.since_utc_ns - START_NS) // S, s.times, s.is_open) for s in made.spells]


def test_a_camera_without_events_or_that_always_saw_has_no_blind_time() -> None:
    assert line() == line(at(-5, UP)) == ([], [])


def test_blind_time_from_before_is_cut_and_lasts_until_the_camera_sees_again() -> None:
    assert line(at(-5, DOWN), at(60, UP)) == ([(0, 60, "offline")], [(0, 1, False)])
    assert line(at(-5, UP), at(86_000, BLIND, Cause.FROZEN)) == ([(86_000, 86_400, "frozen")], [(86_000, 1, True)])


def test_a_changed_cause_is_another_interval_of_one_time() -> None:
    drawn, lines = line(at(10, BLIND, Cause.OVERLOAD), at(20, DOWN), at(30, UP))
    assert drawn == [(10, 20, "overload"), (20, 30, "offline")]
    assert lines == [(10, 1, False)]


def test_flapping_is_one_line_and_long_sight_ends_it() -> None:
    flaps = [at(100 * i + (5 if kind is UP else 0), kind) for i in range(12) for kind in (DOWN, UP)]
    drawn, lines = line(*flaps, at(5000, DOWN), at(5001, UP))
    assert len(drawn) == 13 and lines == [(0, 12, False), (5000, 1, False)]


@pytest.mark.parametrize("gap_s", [1, 29])
def test_what_could_not_be_told_apart_is_drawn_as_one(gap_s: float) -> None:
    drawn, lines = line(at(0, DOWN), at(10, UP), at(10 + gap_s, DOWN), at(100, UP))
    assert drawn == [(0, 100, "offline")] and lines == [(0, 2, False)]
