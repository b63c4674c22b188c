"""One target is one alert, in however many pieces it is tracked; the alert rises and falls with its label and size."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.events import CONFIRMED, ENDED, ESCALATED, LOST, LOWERED, OPENED, kinds, ref, track

from pipeline.alerting.alerts import Alerting
from pipeline.alerting.incidents import END_S, LOWER_S
from pipeline.alerting.target import SETTLE_S
from pipeline.types import EscalationReason, Event, Severity, Track, TrackState

FPS = 25  # as in `ref`


class Flight:
    """A track as the tracker would report it: three tentative frames, confirmed ones, then coasting for a second."""

    def __init__(
        self,
        number: int,
        start: int,
        end: int,
        x: float = 100.0,
        vx: float = 50.0,
        size: float = 10.0,
        labels: Sequence[tuple[int, str]] = ((0, "uav"),),
        sizes: Sequence[tuple[int, float]] = (),
    ) -> None:
        self.number, self.start, self.end = number, start, end
        self.x, self.vx, self.size = x, vx, size
        self.labels, self.sizes = labels, sizes

    def at(self, seq: int) -> Track | None:
        if not self.start <= seq <= self.end + FPS:
            return None
        state = TrackState.CONFIRMED if seq >= self.start + 3 else TrackState.TENTATIVE
        if seq >= self.end:
            state = TrackState.COASTING if seq < self.end + FPS else TrackState.LOST
        last = min(seq, self.end - 1)
        x = self.x + self.vx * (seq - self.start) / FPS
        half = [size for first, size in ((0, self.size), *self.sizes) if seq >= first][-1] / 2
        label = [label for first, label in self.labels if seq >= first][-1]
        box = (x - half, 100 - half, x + half, 100 + half)
        return track(
            self.number, last, state=state, label=label, xyxy=box, velocity_px_s=(self.vx, 0.0),
            first_seen=ref(self.start), last_seen=ref(last),
        )  # fmt: skip


def run(flights: Sequence[Flight], frames: int, shift_px: tuple[float, float] | None = (0.0, 0.0)) -> list[Event]:
    alerting, events = Alerting("north", "s1"), list[Event]()
    for seq in range(frames):
        tracks = [seen for flight in flights if (seen := flight.at(seq))]
        events += alerting.update(ref(seq), tracks, shift_px)
    alive = [seen for flight in flights if (seen := flight.at(frames - 1)) and seen.state is not TrackState.LOST]
    confirmed = [seen for seen in alive if seen.state is not TrackState.TENTATIVE]
    return events + alerting.close(
        ref(frames - 1), [msgspec.structs.replace(seen, state=TrackState.LOST) for seen in confirmed]
    )


def alerts(events: Sequence[Event]) -> int:
    """How many there were, each opened and ended once."""
    opened = [event.alert for event in events if event.kind is OPENED]
    assert sorted(opened) == sorted({event.alert for event in events if event.kind in (ENDED, LOWERED)})
    return len(opened)


def life(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.is_alert]


@pytest.mark.parametrize("gap_s", [0.2, 1.5, 3.0])
def test_a_target_that_is_found_again_where_it_would_be_goes_on_in_its_alert(gap_s: float) -> None:
    again = 50 + round(gap_s * FPS)
    second = Flight(2, again, again + 50, x=100 + 50 * again / FPS)
    events = run([Flight(1, 0, 50), second], 300)
    assert alerts(events) == 1
    first, joined = (event for event in events if event.kind is CONFIRMED)
    assert joined.alert == first.alert == first.id and first.track and joined.track
    assert (first.track.id, joined.track.id) == (1, 2)
    assert events[-1].track is not None and events[-1].track.id == 2
    assert events[-1].pts_s == pytest.approx((second.end - 1) / FPS + END_S, abs=1.5 / FPS)


def test_a_target_that_stopped_meanwhile_is_the_same() -> None:
    last_x = 100 + 200 * 49 / FPS
    assert alerts(run([Flight(1, 0, 50, vx=200), Flight(2, 100, 150, x=last_x, vx=0)], 300)) == 1
    assert alerts(run([Flight(1, 0, 50, vx=200), Flight(2, 100, 150, x=last_x + 100, vx=0)], 300)) == 2, "half way"


def test_another_place_size_or_time_is_another_target() -> None:
    first, again = Flight(1, 0, 50), 75
    there = 100 + 50 * again / FPS
    assert alerts(run([first, Flight(2, again, 150, x=there + 80)], 300)) == 2
    assert alerts(run([first, Flight(2, again, 150, x=there, size=35)], 300)) == 2
    late = 50 + round((END_S + 1) * FPS)
    assert alerts(run([first, Flight(2, late, late + 50, x=100 + 50 * late / FPS)], 400)) == 2


def test_two_tracks_of_one_place_are_one_target_and_two_targets_near_each_other_are_two() -> None:
    assert alerts(run([Flight(1, 0, 100), Flight(2, 30, 90, x=100 + 50 * 30 / FPS + 6)], 300)) == 1
    assert alerts(run([Flight(1, 0, 100), Flight(2, 30, 90, x=100 + 50 * 30 / FPS + 25)], 300)) == 2


def test_in_an_image_that_moves_the_place_moves_along() -> None:
    """The camera turns by 4 px a frame, against which the target stands still."""
    first, again = Flight(1, 0, 50, vx=100.0), 125
    second = Flight(2, again, again + 50, x=100 + 100 * again / FPS, vx=100.0)
    for flight in (first, second):
        flight_at = flight.at
        flight.at = lambda seq, flight_at=flight_at: (  # type: ignore[method-assign]
            msgspec.structs.replace(seen, velocity_px_s=(0.0, 0.0)) if (seen := flight_at(seq)) else None
        )
    assert alerts(run([first, second], 400, shift_px=(4.0, 0.0))) == 1
    assert alerts(run([first, second], 400, shift_px=None)) == 2


def test_an_unknown_target_that_becomes_a_uav_escalates_at_once() -> None:
    events = life(run([Flight(1, 0, 100, labels=((0, "unknown"), (40, "uav")))], 300))
    opened, escalated, ended = events
    assert kinds(events) == [OPENED, ESCALATED, ENDED]
    assert (opened.severity, escalated.severity) == (Severity.WARNING, Severity.ALARM)
    assert (escalated.was, escalated.reason, escalated.frame) == ("unknown", EscalationReason.LABEL, 40)
    assert escalated.track is not None and escalated.track.label == "uav"
    assert escalated.alert == opened.alert == ended.alert


def test_a_piece_with_a_higher_label_escalates_the_alert_that_it_joins() -> None:
    second = Flight(2, 60, 120, x=100 + 50 * 60 / FPS)
    events = life(run([Flight(1, 0, 50, labels=((0, "unknown"),)), second], 300))
    assert kinds(events) == [OPENED, ESCALATED, ENDED]
    assert events[1].track is not None and events[1].track.id == 2


def test_a_lower_label_is_believed_when_it_lasts_and_a_flicker_is_not_reported() -> None:
    lower = 40 + round(LOWER_S * FPS)
    for label, severity, after in (("unknown", Severity.WARNING, [ENDED]), ("bird", Severity.INFO, [])):
        events = life(run([Flight(1, 0, 300, labels=((0, "uav"), (40, label)))], 500))
        assert kinds(events) == [OPENED, LOWERED, *after], "a distractor's label is its end"
        assert (events[1].was, events[1].severity, events[1].frame) == ("uav", severity, lower)
    flicker = [(seq, "unknown" if seq % 50 else "uav") for seq in range(0, 300, 25)]
    assert kinds(life(run([Flight(1, 0, 300, labels=flicker)], 500))) == [OPENED, ENDED]


def test_a_bird_that_becomes_a_uav_again_is_the_same_alert_active_again() -> None:
    labels = ((0, "unknown"), (10, "bird"), (250, "uav"))
    events = life(run([Flight(1, 0, 300, labels=labels)], 500))
    assert kinds(events) == [OPENED, LOWERED, ESCALATED, ENDED]
    assert (events[2].was, events[2].severity) == ("bird", Severity.ALARM)
    assert len({event.alert for event in events}) == 1


def test_a_target_that_doubles_its_size_approaches_each_time() -> None:
    grows = [(seq, 10 * 2 ** (seq / 100)) for seq in range(500)]
    events = life(run([Flight(1, 0, 450, sizes=grows)], 600))
    assert kinds(events) == [OPENED, *[ESCALATED] * 4, ENDED]
    first = events[1]
    assert (first.reason, first.was, first.severity) == (EscalationReason.APPROACH, None, Severity.ALARM)
    assert 100 < first.frame < 160


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=300, max_size=300))
def test_a_box_of_few_pixels_that_jumps_does_not_approach(noise: list[float]) -> None:
    sizes = [(seq, 5 + jump) for seq, jump in enumerate(noise)]
    assert kinds(life(run([Flight(1, 0, 300, sizes=sizes)], 500))) == [OPENED, ENDED]


def test_a_target_that_comes_into_the_image_does_not_approach() -> None:
    """Half of it is seen first."""
    enters = [(seq, 10 + 10 * min(1.0, seq / (SETTLE_S * FPS))) for seq in range(300)]
    assert kinds(life(run([Flight(1, 0, 300, sizes=enters)], 500))) == [OPENED, ENDED]


def test_a_presentation_time_that_jumps_back_ends_what_was_open() -> None:
    alerting = Alerting("north", "s1")
    assert kinds(alerting.update(ref(1000), [track(1, 1000)])) == [CONFIRMED, OPENED]
    assert kinds(alerting.update(ref(3), [track(1, 1000, state=TrackState.LOST)])) == [LOST, ENDED]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_alert_is_opened_once_and_ends_once_in_order_whatever_the_tracks_do(data: st.DataObject) -> None:
    label = st.sampled_from(["uav", "unknown", "bird"])
    flights = []
    for number in range(1, data.draw(st.integers(1, 5)) + 1):
        start = data.draw(st.integers(0, 250))
        labels = [(0, data.draw(label)), (data.draw(st.integers(0, 400)), data.draw(label))]
        flights.append(
            Flight(number, start, start + data.draw(st.integers(1, 200)), data.draw(st.floats(0, 500)),
                   data.draw(st.floats(-200, 200)), data.draw(st.floats(2, 60)), labels)
        )  # fmt: skip
    events = run(flights, 300)
    assert run(flights, 300) == events, "and the same again"
    assert len({event.id for event in events}) == len(events)
    times = [event.time_utc_ns for event in events]
    assert times == sorted(times)
    for alert in {event.alert for event in events if event.alert}:
        own = kinds(event for event in events if event.alert == alert)
        assert own[:2] == [CONFIRMED, OPENED] and own.count(OPENED) == 1
        assert own.count(CONFIRMED) == own.count(LOST)
        state = [kind for kind in own if kind.startswith("alert.")]
        assert ENDED not in state[:-1] and state[-1] in (ENDED, LOWERED)
