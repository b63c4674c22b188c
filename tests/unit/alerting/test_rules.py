"""Rules decide which targets are alerted, when, and how severely; the first that applies decides."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path as FilePath
from zoneinfo import ZoneInfo

import msgspec
import pytest
from support.events import CONFIRMED, ENDED, ESCALATED, LOST, LOWERED, OPENED, kinds, ref, track

from pipeline.alerting.alerts import Alerting
from pipeline.alerting.rules import Limits, Rule, When
from pipeline.alerting.schedule import Period, Span, Weekly
from pipeline.alerting.zones import Area, Line, Sector
from pipeline.store.reader import StoreReader
from pipeline.store.store import Store
from pipeline.types import Bearing, EscalationReason, Event, Severity, Track, TrackState

FPS = 25  # as in `ref`
PAD = Area(((0.0, 0.0), (200.0, 0.0), (200.0, 200.0), (0.0, 200.0)))
FENCE = Area(((200.0, 0.0), (400.0, 0.0), (400.0, 200.0), (200.0, 200.0)))
LINE = Line((200.0, 200.0), (200.0, 0.0))  # crossed from left to right
RECORD = Rule("elsewhere", alerts=False)
Path = Callable[[int], tuple[float, float]]


def flies(vx: float, x: float = 50.0, y: float = 100.0) -> Path:
    """A way at constant speed, in px/s."""
    return lambda seq: (x + vx * seq / FPS, y)


def seen(number: int, seq: int, path: Path, first: int = 0, size: float = 10.0, **changes: object) -> Track:
    x, y = path(seq - first)
    before = path(seq - first - 1)
    box = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
    velocity = ((x - before[0]) * FPS, (y - before[1]) * FPS)
    times = {"first_seen": ref(first), "last_seen": ref(seq), "xyxy": box, "velocity_px_s": velocity}
    return track(number, seq, **times | changes)


def run(
    rules: Sequence[Rule], paths: Sequence[Path], frames: int, alerting: Alerting | None = None, **changes: object
) -> list[Event]:
    """The events of targets that fly along these ways from the first frame to the last."""
    alerting, events = alerting or Alerting("north", "s1"), list[Event]()
    alerting.rules = rules
    for seq in range(frames):
        tracks = [seen(number, seq, path, **changes) for number, path in enumerate(paths, 1)]
        events += alerting.update(ref(seq), tracks, (0.0, 0.0))
    lost = [msgspec.structs.replace(each, state=TrackState.LOST) for each in tracks]
    return events + alerting.close(ref(frames - 1), lost)


def opened(events: Sequence[Event]) -> list[tuple[int, str | None, Severity]]:
    return [(event.frame, event.rule, event.severity) for event in events if event.kind is OPENED]


def test_a_target_that_no_rule_matches_is_alerted_as_without_rules() -> None:
    other = Rule("gate", zones=(FENCE,), labels=("unknown",), alerts=False)
    assert run([other], [flies(50)], 100) == run([], [flies(50)], 100)


def test_a_recorded_target_is_confirmed_and_lost_without_an_alert() -> None:
    confirmed, lost = run([RECORD], [flies(10)], 50)
    assert (confirmed.kind, confirmed.rule, confirmed.alert, confirmed.severity) == (
        CONFIRMED, "elsewhere", None, Severity.INFO,
    )  # fmt: skip
    assert (lost.kind, lost.alert) == (LOST, None)


def test_the_alert_of_a_recorded_target_opens_when_it_enters_a_zone() -> None:
    events = run([Rule("fence", zones=(FENCE,)), RECORD], [flies(100)], 100)
    assert kinds(events) == [CONFIRMED, OPENED, LOST, ENDED]
    confirmed, alert, lost, ended = events
    assert (alert.frame, alert.rule, alert.severity, alert.alert) == (38, "fence", Severity.ALARM, confirmed.id)
    assert lost.alert == ended.alert == confirmed.id


def test_the_store_has_the_late_alert_with_its_track_and_a_recorded_track_without_one(tmp_path: FilePath) -> None:
    rules = [Rule("fence", zones=(FENCE,), severity=Severity.WARNING), Rule("elsewhere", alerts=False)]
    events = run(rules, [flies(100, y=50), flies(5, y=150)], 100)
    with Store(tmp_path / "store.sqlite") as store:
        assert store.append(events) == len(events)
        with StoreReader(tmp_path / "store.sqlite") as reader:
            (alert,) = reader.alerts(10)
            tracks = reader.tracks(10)
    assert (alert.severity, alert.highest_severity, alert.highest_label) == (Severity.WARNING, Severity.WARNING, "uav")
    assert [each.id for each in alert.tracks] == [1] and {each.id for each in tracks} == {1, 2}
    assert alert.opened_utc_ns == ref(38).received_utc_ns and alert.state == "ended"


def test_an_alert_outlasts_the_zone_in_which_it_opened() -> None:
    events = run([Rule("pad", zones=(PAD,)), RECORD], [flies(100)], 100)
    assert kinds(events) == [CONFIRMED, OPENED, LOST, ENDED]


@pytest.mark.parametrize(
    ("when", "zones", "path", "frame"),
    [
        (When.ENTER, (FENCE,), flies(100), 38),
        (When.ENTER, (PAD,), flies(100), None),  # it began inside
        (When.LEAVE, (PAD,), flies(100), 38),
        (When.LEAVE, (FENCE,), flies(10), None),
        (When.CROSS, (LINE,), flies(100), 38),
        (When.CROSS, (LINE,), flies(-100, x=350), None),  # against its direction
        (When.CROSS, (LINE,), flies(100, y=300), None),  # beyond its end
        (When.DWELL, (PAD,), flies(10), 50),
        (When.DWELL, (PAD,), flies(100), None),  # it is gone after 1.5 s
        (When.INSIDE, (PAD, FENCE), flies(0, x=300), 0),
    ],
)
def test_what_a_target_does_with_respect_to_a_zone(when: When, zones: tuple, path: Path, frame: int | None) -> None:
    rule = Rule("zone", zones=zones, when=when, dwell_s=2.0)
    assert opened(run([rule, RECORD], [path], 100)) == ([] if frame is None else [(frame, "zone", Severity.ALARM)])


def test_what_has_happened_stays_true_and_counts_when_the_rest_of_the_rule_applies() -> None:
    late = Rule("late", zones=(LINE,), when=When.CROSS, duration_s=Limits(3.0))
    assert opened(run([late, RECORD], [flies(100)], 100)) == [(75, "late", Severity.ALARM)]


def test_a_piece_of_a_target_has_the_past_of_the_earlier_one() -> None:
    path = flies(50, x=160)  # crosses after 20 frames, of which it is not seen
    alerting, events = Alerting("north", "s1"), list[Event]()
    alerting.rules = [Rule("line", zones=(LINE,), when=When.CROSS), RECORD]
    for seq in range(60):
        tracks = [seen(1, seq, path)] if seq < 15 else []
        if seq == 15:
            tracks = [seen(1, seq, path, state=TrackState.LOST, last_seen=ref(14))]
        if seq >= 40:
            tracks = [seen(2, seq, lambda age: path(age + 40), first=40)]
        events += alerting.update(ref(seq), tracks, (0.0, 0.0))
    assert kinds(events) == [CONFIRMED, LOST, CONFIRMED, OPENED]
    assert events[-1].alert == events[0].id, "one target, one alert"


def test_an_approaching_target() -> None:
    alerting, events = Alerting("north", "s1"), list[Event]()
    alerting.rules = [Rule("near", when=When.APPROACH, zones=(PAD,)), RECORD]
    for seq in range(150):
        events += alerting.update(ref(seq), [seen(1, seq, flies(1), size=10 + seq / 5)], (0.0, 0.0))
    assert opened(events)[0][1] == "near" and 50 < opened(events)[0][0] < 100


def test_a_sector_of_directions_may_span_north() -> None:
    sector = Sector((350.0, 10.0), (5.0, 90.0))
    for azimuth, elevation, is_inside in [
        (355, 6, True),
        (9, 80, True),
        (11, 6, False),
        (180, 6, False),
        (0, 4, False),
    ]:
        bearing = Bearing(azimuth, elevation, 0.1, 0.1)
        assert sector.holds(track(1, bearing=bearing)) is is_inside
    assert not sector.holds(track(1)), "a camera without a pose"
    assert Sector((0.0, 360.0), (-90.0, 90.0)).holds(track(1, bearing=Bearing(200, 0, 0.1, 0.1)))


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({"labels": ("unknown",)}, False),
        ({"score": Limits(0.9)}, True),
        ({"score": Limits(0.91)}, False),
        ({"log_odds": Limits(2.5)}, True),
        ({"log_odds": Limits(2.6)}, False),
        ({"size_px": Limits(10, 10)}, True),
        ({"size_px": Limits(11)}, False),
        ({"size_px": Limits(greatest=9)}, False),
        ({"speed_px_s": Limits(90, 110)}, True),
        ({"speed_px_s": Limits(111)}, False),
        ({"speed_px_s": Limits(greatest=89)}, False),
        ({"min_count": 2}, False),
        ({"needs_arming": True}, True),
    ],
)
def test_conditions_on_the_target(conditions: dict, applies: bool) -> None:
    events = run([Rule("r", **conditions), RECORD], [flies(100)], 20)
    assert opened(events) == ([(0, "r", Severity.ALARM)] if applies else [])


def test_a_count_is_of_targets_that_meet_all_other_conditions_at_once() -> None:
    swarm = Rule("swarm", zones=(FENCE,), min_count=3, severity=Severity.ALARM)
    paths = [flies(100, y=20), flies(75, y=100), flies(50, y=180), flies(0, y=60)]
    events = run([swarm, RECORD], paths, 100)
    assert [frame for frame, *_ in opened(events)] == [75, 75, 75], "all that are there, when the third comes"
    assert opened(run([swarm, RECORD], paths[:2], 100)) == []


def test_the_first_rule_that_applies_decides() -> None:
    rules = [Rule("pad", zones=(PAD,), alerts=False), Rule("any", severity=Severity.WARNING)]
    assert opened(run(rules, [flies(100)], 50)) == [(38, "any", Severity.WARNING)]
    assert opened(run(rules[::-1], [flies(100)], 50)) == [(0, "any", Severity.WARNING)]


def test_a_rule_of_a_higher_severity_escalates_an_open_alert_and_a_lower_one_changes_nothing() -> None:
    rules = [
        Rule("fence", zones=(FENCE,), severity=Severity.ALARM),
        Rule("pad", zones=(PAD,), severity=Severity.WARNING),
        RECORD,
    ]
    events = run(rules, [flies(100)], 150)
    assert kinds(events) == [CONFIRMED, OPENED, ESCALATED, LOST, ENDED]
    _, alert, escalated, *_ = events
    assert (alert.severity, alert.rule) == (Severity.WARNING, "pad")
    assert (escalated.severity, escalated.rule, escalated.reason, escalated.frame) == (
        Severity.ALARM, "fence", EscalationReason.RULE, 38,
    )  # fmt: skip
    back = run(rules, [flies(-100, x=350)], 150)
    assert kinds(back) == [CONFIRMED, OPENED, LOST, ENDED]


def test_an_alert_of_a_rule_falls_and_ends_with_its_label_whatever_the_rule_s_severity() -> None:
    alerting, events = Alerting("north", "s1"), list[Event]()
    alerting.rules = [Rule("any", severity=Severity.ALARM)]
    for seq in range(300):
        label = "unknown" if seq < 50 else "uav" if seq < 100 else "bird"
        events += alerting.update(ref(seq), [seen(1, seq, flies(1), label=label)], (0.0, 0.0))
    assert [(event.kind, event.severity) for event in events[1:]] == [
        (OPENED, Severity.ALARM), (ESCALATED, Severity.ALARM), (LOWERED, Severity.INFO),
    ]  # fmt: skip
    assert events[-1].ends_alert


def test_a_cooldown_begins_with_an_alert_and_hides_no_higher_severity_and_no_escalation() -> None:
    alerting, events = Alerting("north", "s1"), list[Event]()
    alerting.rules = [Rule("quiet", cooldown_s=4.0)]
    y = (20.0, 100.0, 180.0, 300.0)
    for seq in range(200):
        tracks = [seen(1, seq, flies(1, y=y[0]), label="unknown" if seq < 60 else "uav")]
        tracks += [seen(2, seq, flies(1, y=y[1]), first=20, label="unknown")] if seq >= 20 else []
        tracks += [seen(3, seq, flies(1, y=y[2]), first=40)] if seq >= 40 else []  # a uav
        events += alerting.update(ref(seq), tracks, (0.0, 0.0))
    shown = [(event.frame, event.kind, event.track.id) for event in events if event.is_alert and event.track]
    assert shown == [(0, OPENED, 1), (40, OPENED, 3), (60, ESCALATED, 1), (140, OPENED, 2)]


def test_two_targets_of_one_frame_share_a_cooldown() -> None:
    events = run([Rule("quiet", cooldown_s=60.0)], [flies(1, y=20), flies(1, y=150)], 50)
    assert len(opened(events)) == 1 and kinds(events).count(CONFIRMED) == 2


def test_rules_that_need_arming_apply_while_armed() -> None:
    alerting = Alerting("north", "s1")
    alerting.armed = False
    rules = [Rule("armed", needs_arming=True), RECORD]
    assert opened(run(rules, [flies(1)], 20, alerting)) == []
    alerting = Alerting("north", "s1")
    alerting.rules, alerting.armed, events = rules, False, list[Event]()
    for seq in range(30):
        alerting.armed = seq >= 20
        events += alerting.update(ref(seq), [seen(1, seq, flies(1))], (0.0, 0.0))
    assert opened(events) == [(20, "armed", Severity.ALARM)], "at once, for what is already there"


def test_zones_and_rules_may_be_replaced_without_losing_what_happened_in_zones_that_stay() -> None:
    alerting, events = Alerting("north", "s1"), list[Event]()
    crossed = Rule("line", zones=(LINE,), when=When.CROSS, duration_s=Limits(3.0))
    alerting.rules = [crossed, RECORD]
    for seq in range(100):
        if seq == 50:
            alerting.rules = [replace(crossed, name="renamed"), Rule("other", zones=(FENCE,), alerts=False), RECORD]
        events += alerting.update(ref(seq), [seen(1, seq, flies(100))], (0.0, 0.0))
    assert opened(events) == [(75, "renamed", Severity.ALARM)]


NIGHT = Weekly(frozenset({0}), 22 * 60, 6 * 60, ZoneInfo("Europe/Berlin"))  # Monday, 2026-03-30 was one


@pytest.mark.parametrize(
    ("time", "holds"),
    [
        ("2026-03-30T19:59", False),
        ("2026-03-30T20:00", True),  # summer: UTC+2
        ("2026-03-31T03:59", True),
        ("2026-03-31T04:00", False),
        ("2026-03-31T21:00", False),  # Tuesday
        ("2026-03-30T01:00", False),  # the night that began on Sunday
        ("2026-01-05T20:30", False),  # winter: UTC+1
        ("2026-01-05T21:00", True),
    ],
)
def test_a_schedule_is_of_its_time_zone_and_belongs_to_the_day_on_which_it_begins(time: str, holds: bool) -> None:
    assert NIGHT.holds(round(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1e9)) is holds


def test_a_rule_applies_in_its_time_which_is_that_of_the_frame() -> None:
    begins = ref(20).received_utc_ns
    flight = Rule("flight", zones=(PAD,), alerts=False, period=Period((Span(begins, ref(40).received_utc_ns),)))
    assert opened(run([flight], [flies(1)], 60))[0][0] == 0
    flight = replace(flight, period=Period((Span(0, begins),)))
    assert opened(run([flight], [flies(1)], 60)) == [(20, None, Severity.ALARM)], "it outstays its time"
    all_day = Weekly(frozenset(range(7)), 0, 24 * 60, ZoneInfo("UTC"))
    assert opened(run([replace(flight, period=Period((all_day,)))], [flies(1)], 60)) == []
