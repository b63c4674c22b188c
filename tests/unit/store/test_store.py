"""The store: events are stored once and survive; a damaged or foreign file is an error that names it."""

import sqlite3
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from support.events import CONFIRMED, LABELLED, LOST, START_NS, event, ref, track

from pipeline.errors import StoreError
from pipeline.store.reviews import acknowledge, dismiss
from pipeline.store.schema import VERSION
from pipeline.store.store import Store, StoreReader
from pipeline.types import DismissReason, EventKind, Severity, TrackState

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
    opened, lost = event(CONFIRMED, track(1)), event(LOST, track(1, 9, state=TrackState.LOST))
    with Store(path) as store, StoreReader(path) as reader:
        store.append([opened, lost])
        assert store.append([opened, opened]) == 0
        assert reader.alerts(10)[0].state == "ended", "the repeated event does not open the alert again"
        store.append([event(EventKind.CAMERA_DOWN)])
        assert [item.row for item in reader.events(10)] == [1, 2, 3]
        assert reader.backlog("any") == 3


def test_an_alert_is_opened_follows_its_track_and_is_ended(path: Path) -> None:
    unsure = track(1, label="unknown", evidence={"uav": 0.1})
    opened = event(CONFIRMED, unsure, severity=Severity.WARNING, snapshot="a.jpg")
    with Store(path) as store, StoreReader(path) as reader:
        store.append([opened])
        (alert,) = reader.alerts(10, active_only=True)
        assert (alert.id, alert.track, alert.severity, alert.label) == (opened.id, unsure.ulid, "warning", "unknown")
        assert (alert.snapshot, alert.opened_utc_ns, alert.ended_utc_ns) == ("a.jpg", START_NS, None)

        store.update_tracks([track(1, 50), track(2, 50, label="bird")])
        (alert,) = reader.alerts(10, active_only=True)
        assert (alert.label, alert.evidence, alert.xyxy) == ("uav", {"uav": 2.5, "bird": -1.0}, (60, 20, 80, 40))
        assert alert.last_seen_utc_ns == ref(50).received_utc_ns
        assert [item.label for item in reader.tracks(10)] == ["bird", "uav"]

        store.append([event(CONFIRMED, track(1, 51))])
        (alert,) = reader.alerts(10)
        assert (alert.id, alert.severity) == (opened.id, "alarm"), "a second confirmation raises, and opens no other"

        end = event(LOST, track(1, 51, state=TrackState.LOST), alert=opened.id, time_utc_ns=START_NS + 10**10)
        store.append([end])
        assert reader.alerts(10, active_only=True) == []
        (alert,) = reader.alerts(10)
        assert (alert.state, alert.ended_utc_ns, alert.snapshot) == ("ended", START_NS + 10**10, "a.jpg")
        assert {item.id: item.state for item in reader.tracks(10)} == {1: "lost", 2: "confirmed"}


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


def test_what_a_crashed_writer_left_active_is_ended_at_its_last_detection(path: Path) -> None:
    with Store(path) as store:
        store.append([event(CONFIRMED, track(1))])
        store.update_tracks([track(1, 75)])
    with Store(path), StoreReader(path) as reader:
        (alert,) = reader.alerts(10)
        assert (alert.state, alert.ended_utc_ns) == ("ended", ref(75).received_utc_ns)
        assert reader.tracks(10) == [track(1, 75, state=TrackState.LOST)]


def test_a_number_that_json_cannot_hold_is_refused_with_the_whole_batch(path: Path) -> None:
    bad = track(2, evidence={"uav": float("nan")})
    with Store(path) as store, StoreReader(path) as reader:
        with pytest.raises(StoreError, match="Event of 'north' cannot be stored"):
            store.append([event(CONFIRMED, track(1)), event(CONFIRMED, bad)])
        with pytest.raises(StoreError, match="Track of 'north' cannot be stored"):
            store.update_tracks([bad])
        assert reader.events(10) == [] and reader.tracks(10) == [] and reader.alerts(10) == []


def test_a_second_writer_is_refused_and_harms_nothing(path: Path) -> None:
    with Store(path) as store, StoreReader(path) as reader:
        store.append([event(CONFIRMED, track(1))])
        with pytest.raises(StoreError, match="locked by another process"):
            Store(path)
        assert len(reader.alerts(10, active_only=True)) == 1
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
from support.events import CONFIRMED, event, track
from pipeline.store.store import Store
store = Store(Path(sys.argv[1]))
for number in range(10**6):
    made = event(CONFIRMED, track(number))
    store.append([made])
    store.update_tracks([track(number, 5)])
    print(made.id, flush=True)
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
        stored = [item.event.id for item in reader.events(10**6)]
        assert stored[: len(printed)] == printed
        assert len(stored) - len(printed) in (0, 1), "the last may have been committed, but not printed"
        assert {alert.state for alert in reader.alerts(10**6)} == {"ended"}


def test_readers_see_each_commit_while_it_is_being_written(path: Path) -> None:
    numbers = count()
    with Store(path) as store, StoreReader(path) as reader:
        for _ in range(50):
            store.append([event(CONFIRMED, track(next(numbers)))])
            store.update_tracks([track(0, 3)])
            assert len(reader.events(1000)) == len(reader.alerts(1000)) == len(reader.tracks(1000))


def test_reviews_of_an_alert_are_stored_with_their_time(path: Path) -> None:
    first, second = event(CONFIRMED, track(1)), event(CONFIRMED, track(2))
    with pytest.raises(StoreError, match="no store yet"):
        acknowledge(path, first.id, 1)
    with Store(path) as store, StoreReader(path) as reader:
        store.append([first, second])
        assert acknowledge(path, first.id, 100) and acknowledge(path, first.id, 200)
        assert dismiss(path, second.id, DismissReason.BIRD, 300)
        assert dismiss(path, second.id, DismissReason.INSECT, 400)
        assert not acknowledge(path, "unknown", 1) and not dismiss(path, "unknown", DismissReason.OTHER, 1)
        store.update_tracks([track(1, 5), track(2, 5)])
        store.append([event(LOST, track(1, 6, state=TrackState.LOST), alert=first.id)])
        alerts = {alert.id: alert for alert in reader.alerts(10)}
        seen, dismissed = alerts[first.id], alerts[second.id]
        assert (seen.acknowledged_utc_ns, seen.dismissed_utc_ns, seen.dismissed_as) == (100, None, None)
        assert (dismissed.acknowledged_utc_ns, dismissed.dismissed_utc_ns) == (300, 400)
        assert (dismissed.dismissed_as, dismissed.state) == (DismissReason.INSECT, "active")


def test_a_store_of_version_1_is_migrated_with_its_content(path: Path) -> None:
    opened = event(CONFIRMED, track(1))
    with Store(path) as store:
        store.append([opened])
    connection = sqlite3.connect(path)
    for column in ("acknowledged_utc_ns", "dismissed_utc_ns", "dismissed_as"):
        connection.execute(f"ALTER TABLE alerts DROP COLUMN {column}")  # as version 1 had it
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(StoreError, match=f"version 1; `dasnet run` migrates it to {VERSION}"):
        StoreReader(path)
    with Store(path), StoreReader(path) as reader:
        assert acknowledge(path, opened.id, 100)
        (alert,) = reader.alerts(10)
        assert (alert.id, alert.state, alert.acknowledged_utc_ns) == (opened.id, "ended", 100)
        assert [item.event for item in reader.events(10)] == [opened]


def test_tracks_and_events_of_version_0_2_are_still_read(path: Path) -> None:
    """Their tracks have neither a novelty nor a reason."""
    old = track(1, novelty=0.0, reason=None)
    with Store(path) as store:
        store.append([event(CONFIRMED, old)])
    connection = sqlite3.connect(path)
    for table in ("tracks", "events"):
        ((payload,),) = connection.execute(f"SELECT payload FROM {table}")
        shorter = payload.replace(b',"novelty":0.0,"reason":null', b"")
        assert shorter != payload
        connection.execute(f"UPDATE {table} SET payload = ?", (shorter,))
    connection.commit()
    connection.close()
    with Store(path), StoreReader(path) as reader:
        assert [item.event.track for item in reader.events(10)] == [old]
        assert [item.hits for item in reader.tracks(10)] == [old.hits]
