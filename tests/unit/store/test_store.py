"""The store: events are stored once and survive; a damaged or foreign file is an error that names it."""

import sqlite3
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from support.events import (
    CONFIRMED,
    ENDED,
    ESCALATED,
    LABELLED,
    LOST,
    LOWERED,
    START_NS,
    event,
    gone,
    raised,
    ref,
    track,
)

from pipeline.errors import StoreError
from pipeline.store.reader import StoreReader
from pipeline.store.reviews import acknowledge
from pipeline.store.store import Store
from pipeline.store.tables import VERSION
from pipeline.types import EventKind, Severity, Track, TrackState

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "store.sqlite"


def test_events_come_back_as_they_were_in_order_and_after_a_row(path: Path) -> None:
    events = [event(EventKind.CAMERA_UP, camera=f"c{n}") for n in range(5)] + [event(CONFIRMED, track(1))]
    with Store(path) as store, StoreReader(path) as reader:
        assert store.append(events[:3]) == 3
        assert store.append(events[3:]) == 3
        stored = reader.events(10)
        assert [item.event for item in stored] == events
        assert [item.event for item in reader.events(2)] == events[-2:], "without a row: the newest, oldest first"
        assert [item.event for item in reader.events(2, after=stored[1].row)] == events[2:4]
        assert reader.events(10, after=stored[-1].row) == []
        assert reader.row_of(events[2].id) == stored[2].row
        assert reader.row_of("unknown") is None


def test_a_duplicate_event_is_ignored_and_leaves_no_gap(path: Path) -> None:
    opened = raised(track(1))
    ended = gone(track(1, 9), opened[0].id)
    with Store(path) as store, StoreReader(path) as reader:
        store.append(opened + ended)
        assert store.append(opened * 2) == 0
        assert reader.alerts(10)[0].state == "ended", "the repeated event does not open the alert again"
        store.append([event(EventKind.CAMERA_DOWN)])
        assert [item.row for item in reader.events(10)] == [1, 2, 3, 4, 5]
        assert reader.backlog("any") == 5


def test_an_alert_follows_its_tracks_rises_falls_and_ends(path: Path) -> None:
    unsure = track(1, label="unknown", evidence={"uav": 0.1})
    opened = raised(unsure, severity=Severity.WARNING, snapshot="a.jpg")
    own = {"alert": opened[0].id}
    with Store(path) as store, StoreReader(path) as reader:
        store.append(opened)
        (alert,) = reader.alerts(10, "active")
        assert (alert.id, alert.track, alert.severity, alert.label) == (own["alert"], unsure.ulid, "warning", "unknown")
        assert (alert.snapshot, alert.opened_utc_ns, alert.ended_utc_ns) == ("a.jpg", START_NS, None)

        store.update_tracks([track(1, 50), track(2, 50, label="bird")])
        (alert,) = reader.alerts(10, "active")
        assert (alert.evidence, alert.xyxy) == ({"uav": 2.5, "bird": -1.0}, (60, 20, 80, 40))
        assert (alert.last_seen_utc_ns, alert.label) == (ref(50).received_utc_ns, "unknown"), "until it escalates"
        assert [item.label for item in reader.tracks(10)] == ["bird", "uav"]

        store.append([event(ESCALATED, track(1, 51), was="unknown", snapshot="b.jpg", crop="c.jpg", **own)])
        (alert,) = reader.alerts(10)
        assert (alert.label, alert.severity, alert.opened_as) == ("uav", "alarm", "unknown")
        assert (alert.snapshot, alert.crop, alert.escalated_utc_ns) == ("b.jpg", "c.jpg", ref(51).received_utc_ns)

        store.append(
            [
                event(CONFIRMED, track(3, 60, first_seen=ref(55)), **own),
                event(LOST, track(1, 61, state=TrackState.LOST), **own),
            ]
        )
        (alert,) = reader.alerts(10, "active")
        assert [(item.id, item.state) for item in alert.tracks] == [(1, "lost"), (3, "confirmed")]

        store.append([event(LOWERED, track(3, 70, label="unknown"), was="uav", severity=Severity.WARNING, **own)])
        (alert,) = reader.alerts(10, "active")
        assert (alert.label, alert.severity) == ("unknown", "warning")
        assert (alert.highest_label, alert.highest_severity) == ("uav", "alarm"), "it keeps the highest"

        store.append(gone(track(3, 80), own["alert"], time_utc_ns=START_NS + 10**10))
        assert reader.alerts(10, "active") == [] and reader.alerts(10, "ended") == reader.alerts(10)
        (alert,) = reader.alerts(10)
        assert (alert.state, alert.ended_utc_ns, alert.snapshot) == ("ended", START_NS + 10**10, "b.jpg")


def test_an_alert_follows_a_second_camera_only_while_its_own_sees_nothing(path: Path) -> None:
    opened = raised(track(1))
    own = {"alert": opened[0].id}

    def west(seq: int) -> Track:
        seen = ref(seq, "west")
        return track(9, seq, camera="west", last_seen=seen, first_seen=seen)

    with Store(path) as store, StoreReader(path) as reader:
        store.append([*opened, event(CONFIRMED, west(1), **own)])
        followed = []
        for tracks in ([track(1, 10), west(11)], [west(20)], [west(50)], [west(51)], [track(1, 52)], [west(53)]):
            store.update_tracks(tracks)
            (alert,) = reader.alerts(10)
            followed.append((alert.track, alert.last_seen_utc_ns))
        own_track, other = track(1).ulid, west(1).ulid
        assert followed == [
            (own_track, ref(10).received_utc_ns),
            (own_track, ref(10).received_utc_ns),
            (other, ref(50).received_utc_ns),
            (other, ref(51).received_utc_ns),
            (own_track, ref(52).received_utc_ns),
            (own_track, ref(52).received_utc_ns),
        ]
        assert [(each.camera, each.id) for each in alert.tracks] == [("north", 1), ("west", 9)]


def test_a_distractor_s_label_ends_an_alert_and_a_higher_one_makes_it_active_again(path: Path) -> None:
    opened = raised(track(1))
    own = {"alert": opened[0].id}
    with Store(path) as store, StoreReader(path) as reader:
        store.append([*opened, event(LOWERED, track(1, 5, label="bird"), was="uav", **own)])
        (alert,) = reader.alerts(10)
        assert (alert.state, alert.label, alert.severity, alert.ended_utc_ns) == (
            "ended", "bird", "info", ref(5).received_utc_ns,
        )  # fmt: skip
        acknowledge(path, alert.id, 100)
        store.append([event(ESCALATED, track(1, 9), was="bird", **own)])
        (alert,) = reader.alerts(10)
        assert (alert.state, alert.label, alert.ended_utc_ns, alert.acknowledged_utc_ns) == (
            "active",
            "uav",
            None,
            None,
        )


def test_labelled_tracks_and_events_without_a_track_open_no_alert(path: Path) -> None:
    with Store(path) as store, StoreReader(path) as reader:
        store.append([event(LABELLED, track(1, label="bird")), event(EventKind.CAMERA_UP)])
        assert reader.alerts(10) == []
        assert [item.label for item in reader.tracks(10)] == ["bird"]


def test_tracks_are_updated_in_place_and_tentative_ones_are_left_out(path: Path) -> None:
    with Store(path) as store, StoreReader(path) as reader:
        for seq in range(100):
            store.update_tracks([track(1, seq), track(2, seq, state=TrackState.TENTATIVE)])
        assert reader.tracks(10) == [track(1, 99)]


def test_what_a_crashed_writer_left_active_is_ended_at_its_last_detection_with_an_event(path: Path) -> None:
    opened = raised(track(1))
    with Store(path) as store:
        store.append(opened)
        store.update_tracks([track(1, 75)])
    with Store(path) as store, StoreReader(path) as reader:
        (alert,) = reader.alerts(10)
        assert (alert.state, alert.ended_utc_ns) == ("ended", ref(75).received_utc_ns)
        assert alert.acknowledged_utc_ns is None, "nobody has seen it"
        assert reader.tracks(10) == [track(1, 75, state=TrackState.LOST)]
        assert [item.event for item in reader.events(10)] == opened + store.orphaned
        (ended,) = store.orphaned
        assert (ended.kind, ended.alert, ended.time_utc_ns) == (ENDED, opened[0].id, ref(75).received_utc_ns)
        assert (ended.frame, ended.session, ended.track) == (75, "s1", track(1, 75))
    with Store(path) as store:
        assert store.orphaned == []


def test_a_number_that_json_cannot_hold_is_refused_with_the_whole_batch(path: Path) -> None:
    bad = track(2, evidence={"uav": float("nan")})
    with Store(path) as store, StoreReader(path) as reader:
        with pytest.raises(StoreError, match="Event of 'north' cannot be stored"):
            store.append([*raised(track(1)), *raised(bad)])
        with pytest.raises(StoreError, match="Track of 'north' cannot be stored"):
            store.update_tracks([bad])
        assert reader.events(10) == [] and reader.tracks(10) == [] and reader.alerts(10) == []


def test_a_second_writer_is_refused_and_harms_nothing(path: Path) -> None:
    with Store(path) as store, StoreReader(path) as reader:
        store.append(raised(track(1)))
        with pytest.raises(StoreError, match="locked by another process"):
            Store(path)
        assert len(reader.alerts(10, "active")) == 1
    Store(path).close()


def test_a_reader_opens_a_store_without_a_writer(path: Path) -> None:
    with Store(path) as store:
        store.append([event(CONFIRMED, track(1))])
    assert not path.with_name("store.sqlite-wal").exists()
    with StoreReader(path) as reader:
        assert len(reader.events(10)) == 1


def test_a_reader_without_a_store_is_an_error(path: Path) -> None:
    with pytest.raises(StoreError, match=r"store\.sqlite: no store yet"):
        StoreReader(path)
    path.parent.mkdir()
    path.touch()
    with pytest.raises(StoreError, match="no store yet"):
        StoreReader(path)


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_corrupt_file_is_a_store_error_that_names_it(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for kind in (Store, StoreReader):
        with pytest.raises(StoreError, match=r"store\.sqlite: is damaged or not a store"):
            kind(path)
    assert path.read_bytes() == content


def test_damage_in_the_middle_is_a_store_error_too(path: Path) -> None:
    with Store(path) as store:
        store.append([event(CONFIRMED, track(number)) for number in range(300)])
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (path.stat().st_size - 8192))
    with pytest.raises(StoreError, match=r"store\.sqlite: is damaged"), StoreReader(path) as reader:
        reader.events(1000)


def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (name)")
    connection.close()
    content = path.read_bytes()
    for kind in (Store, StoreReader):
        with pytest.raises(StoreError, match="not a store of dasnet"):
            kind(path)
    assert path.read_bytes() == content


def test_a_store_of_another_version_is_refused(path: Path) -> None:
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    for kind in (Store, StoreReader):
        with pytest.raises(StoreError, match=f"version {VERSION + 1}; must be {VERSION}"):
            kind(path)


def test_a_folder_that_cannot_be_created_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="its folder cannot be created"):
        Store(tmp_path / "file" / "store.sqlite")


WRITER = """
import sys
from pathlib import Path
from support.events import raised, track
from pipeline.store.store import Store
store = Store(Path(sys.argv[1]))
for number in range(10**6):
    made = raised(track(number))
    store.append(made)
    store.update_tracks([track(number, 5)])
    print(made[0].id, flush=True)
"""


def test_what_was_committed_outlives_a_killed_writer(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    ) as process:
        assert process.stdout
        printed = [process.stdout.readline().strip() for _ in range(200)]
        process.kill()
        printed += process.stdout.read().split("\n")[:-1]
    with Store(path), StoreReader(path) as reader:
        stored = [item.event.id for item in reader.events(10**6) if item.event.kind is CONFIRMED]
        assert stored[: len(printed)] == printed
        assert len(stored) - len(printed) in (0, 1), "the last may have been committed, but not printed"
        assert {alert.state for alert in reader.alerts(10**6)} == {"ended"}


def test_readers_see_each_commit_while_it_is_being_written(path: Path) -> None:
    numbers = count()
    with Store(path) as store, StoreReader(path) as reader:
        for _ in range(50):
            store.append(raised(track(next(numbers))))
            store.update_tracks([track(0, 3)])
            assert len(reader.events(1000)) == 2 * len(reader.alerts(1000)) == 2 * len(reader.tracks(1000))


def test_unacknowledged_alerts_are_counted_by_camera_and_highest_severity(path: Path) -> None:
    with Store(path) as store, StoreReader(path) as reader:
        first, second = raised(track(1), time_utc_ns=100), raised(track(2), time_utc_ns=200)
        store.append(first + second + raised(track(3, label="unknown"), severity=Severity.WARNING, time_utc_ns=50))
        lowered = event(LOWERED, track(1, 9, label="unknown"), severity=Severity.WARNING, alert=first[0].id)
        store.append([lowered])
        assert sorted(store.unacknowledged()) == [("north", "alarm", 2, 100), ("north", "warning", 1, 50)]
        assert [alert.id for alert in reader.alerts(10, unacknowledged=True)][:2] == [second[0].id, first[0].id]
        acknowledge(path, first[0].id, 300)
        assert sorted(store.unacknowledged()) == [("north", "alarm", 1, 200), ("north", "warning", 1, 50)]
        store.append([event(ESCALATED, track(2, 9), alert=second[0].id, time_utc_ns=400)])
        assert store.unacknowledged()[0] == ("north", "alarm", 1, 400), "acknowledgement was asked anew"
