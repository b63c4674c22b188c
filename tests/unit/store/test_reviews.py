"""What operators do with alerts is stored once, with its events, from whatever process."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.events import ESCALATED, event, gone, ids, raised, track

from pipeline.errors import StoreError
from pipeline.store.alert import Alert
from pipeline.store.reader import StoreReader
from pipeline.store.reviews import acknowledge, acknowledge_ended, reopen, review
from pipeline.store.store import Store
from pipeline.types import Event, EventKind, Severity, TrackState, Verdict

ACKNOWLEDGED, REVIEWED, REOPENED = EventKind.ALERT_ACKNOWLEDGED, EventKind.ALERT_REVIEWED, EventKind.ALERT_REOPENED
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def opened(store: Store, number: int = 1) -> str:
    events = raised(track(number))
    store.append(events)
    return events[0].id


def alert_in(path: Path, alert: str) -> Alert:
    with StoreReader(path) as reader:
        found = reader.alert(alert)
        assert found is not None
        return found


def stored(path: Path) -> list[Event]:
    with StoreReader(path) as reader:
        return [item.event for item in reader.events(10**6) if item.event.kind in (ACKNOWLEDGED, REVIEWED, REOPENED)]


def kinds(events: Iterable[Event] | None) -> list[EventKind]:
    return [event.kind for event in events or ()]  # none where there is no such alert


def test_the_first_acknowledgement_counts_and_is_an_event_of_the_alert(path: Path) -> None:
    with pytest.raises(StoreError, match="no store yet"):
        acknowledge(path, "any", 1)
    with Store(path) as store:
        alert = opened(store)
        store.update_tracks([track(1, 7)])
        (event,) = acknowledge(path, alert, 100) or ()
        assert acknowledge(path, alert, 200) == []
        assert acknowledge(path, "unknown", 1) is None
        assert (event.kind, event.alert, event.severity, event.time_utc_ns) == (ACKNOWLEDGED, alert, Severity.INFO, 100)
        assert (event.track, event.frame, event.session) == (track(1, 7), 7, "s1")
        assert stored(path) == [event] and alert_in(path, alert).acknowledged_utc_ns == 100


def test_a_verdict_acknowledges_and_can_be_changed_and_withdrawn(path: Path) -> None:
    with Store(path) as store:
        alert = opened(store)
        assert kinds(review(path, alert, Verdict.BIRD, "a heron", 100)) == [ACKNOWLEDGED, REVIEWED]
        seen = alert_in(path, alert)
        assert (seen.verdict, seen.note, seen.reviewed_utc_ns) == ("bird", "a heron", 100)
        assert (seen.acknowledged_utc_ns, seen.dismissed_as, seen.state) == (100, "bird", "active")
        assert review(path, alert, Verdict.BIRD, "a heron", 150) == [], "nothing new"
        assert kinds(review(path, alert, Verdict.UAV, None, 200)) == [REVIEWED]
        seen = alert_in(path, alert)
        assert (seen.verdict, seen.note, seen.dismissed_as, seen.dismissed_utc_ns) == ("uav", None, None, None)
        (withdrawn,) = review(path, alert, None, None, 300) or ()
        assert (withdrawn.kind, withdrawn.verdict) == (REVIEWED, None)
        seen = alert_in(path, alert)
        assert (seen.verdict, seen.reviewed_utc_ns, seen.acknowledged_utc_ns) == (None, None, 100)
        assert review(path, "unknown", Verdict.UAV, None, 1) is None
        assert [event.verdict for event in stored(path)] == [None, "bird", "uav", None]


def test_a_reopened_alert_waits_for_an_operator_again(path: Path) -> None:
    with Store(path) as store:
        alert = opened(store)
        assert reopen(path, alert, 50) == [] and reopen(path, "unknown", 50) is None
        review(path, alert, Verdict.OTHER, "a kite", 100)
        assert kinds(reopen(path, alert, 200)) == [REOPENED]
        seen = alert_in(path, alert)
        assert (seen.verdict, seen.note, seen.acknowledged_utc_ns) == (None, None, None)
        assert kinds(acknowledge(path, alert, 300)) == [ACKNOWLEDGED]


def test_all_that_ended_is_acknowledged_at_once_and_nothing_else(path: Path) -> None:
    with Store(path) as store:
        alerts = [opened(store, number) for number in range(1, 5)]
        acknowledge(path, alerts[0], 10)
        for number, alert in enumerate(alerts[:3], start=1):
            store.append(gone(track(number, 9), alert))
        events = acknowledge_ended(path, 100)
        assert [(event.kind, event.alert) for event in events] == [(ACKNOWLEDGED, alert) for alert in alerts[1:3]]
        assert acknowledge_ended(path, 200) == []
        times = [alert_in(path, alert).acknowledged_utc_ns for alert in alerts]
        assert times == [10, 100, 100, None], "the active one still waits"


def test_an_escalation_asks_anew_and_keeps_the_verdict(path: Path) -> None:
    with Store(path) as store:
        alert = opened(store)
        review(path, alert, Verdict.BIRD, None, 100)
        store.update_tracks([track(1, 5)])
        assert alert_in(path, alert).acknowledged_utc_ns == 100, "the writer leaves reviews alone"
        store.append([event(ESCALATED, track(1, 9), alert=alert)])
        seen = alert_in(path, alert)
        assert (seen.acknowledged_utc_ns, seen.verdict) == (None, "bird")
        assert kinds(acknowledge(path, alert, 200)) == [ACKNOWLEDGED]


REVIEWER = """
import sys, time
from pathlib import Path
from pipeline.store.reviews import acknowledge, reopen
path, alert = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for number in range(10**6):
    for change in (acknowledge, reopen):
        change(path, alert, time.time_ns())
        print(number, flush=True)
"""


def test_reviews_beside_the_writer_have_one_event_each_also_if_their_process_is_killed(path: Path) -> None:
    with Store(path) as store:
        alert = opened(store)
        command = [sys.executable, "-c", REVIEWER, str(path), alert]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            said = 0
            for number in range(100):
                store.append(raised(track(100 + number)))
                said += bool(process.stdout.readline())
            process.kill()
            said += len(process.stdout.read().split("\n")) - 1
        events = stored(path)
        assert len(events) - said in (0, 1), "the last may have been committed, but not said"
        assert kinds(events) == [ACKNOWLEDGED if number % 2 == 0 else REOPENED for number in range(len(events))]
        assert (alert_in(path, alert).acknowledged_utc_ns is None) == (len(events) % 2 == 0)
        assert len(set(ids(events))) == len(events)


def test_reviews_of_operators_on_other_hosts_count_here(tmp_path: Path):
    """Written by the writer, as they come with the events of other hosts, in their order."""
    here, there = tmp_path / "here.sqlite", tmp_path / "there.sqlite"
    events = raised(track(1))
    alert = events[0].id
    with Store(here) as store, Store(there) as other:
        store.append(events)
        other.append(events)
        made = review(there, alert, Verdict.BIRD, "a gull", 5)
        assert made is not None
        assert (store.append(made), store.append(made)) == (2, 0)
        found = alert_in(here, alert)
        assert (found.verdict, found.note, found.acknowledged_utc_ns) == (Verdict.BIRD, "a gull", 5)
        store.append(reopen(there, alert, 6) or [])
        found = alert_in(here, alert)
        assert (found.verdict, found.note, found.acknowledged_utc_ns) == (None, None, None)


def test_a_review_on_another_host_leaves_the_track_as_it_is_here(path: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere.sqlite"
    with Store(path) as store, Store(elsewhere) as other:
        events = raised(track(1))
        alert = events[0].id
        assert store.append(events) == other.append(events)
        store.update_tracks([track(1, seq=50, state=TrackState.LOST)])
        reviews = review(elsewhere, alert, Verdict.BIRD, None, 5)
        assert reviews is not None and store.append(reviews) == 2
        with StoreReader(path) as reader:
            (kept,) = reader.tracks(10)
    assert (kept.state, kept.hits) == (TrackState.LOST, 51), "not as the other host saw it last"
    assert alert_in(path, alert).verdict is Verdict.BIRD
