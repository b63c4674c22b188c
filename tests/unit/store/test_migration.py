"""Stores of older versions are migrated with their content; a fixture of version 3 was written by the code of then."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.events import CONFIRMED, ESCALATED, event, raised, track

from pipeline.errors import StoreError
from pipeline.store.reader import StoreReader
from pipeline.store.store import Store
from pipeline.store.tables import VERSION

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "store.sqlite"


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


def old_store(path: Path, version: int) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((ROOT / "tests" / "data" / "store_v3.sql").read_text())
        if version < 3:
            connection.execute("DROP INDEX events_by_time")
        for column in ("acknowledged_utc_ns", "dismissed_utc_ns", "dismissed_as") if version == 1 else ():
            connection.execute(f"ALTER TABLE alerts DROP COLUMN {column}")
        connection.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_even_older_version_is_migrated(path: Path, version: int) -> None:
    old_store(path, version)
    with Store(path), StoreReader(path) as reader:
        alerts = reader.alerts(10)
        assert len(alerts) == 4 and len(reader.events(100)) == 10
        assert sum(alert.acknowledged_utc_ns is None for alert in alerts) == (4 if version == 1 else 2)


def test_a_store_of_version_3_is_migrated_with_its_content(path: Path) -> None:
    """An alert was one track; its severity did not follow its label."""
    old_store(path, 3)
    with pytest.raises(StoreError, match=f"version 3; `dasnet run` migrates it to {VERSION}"):
        StoreReader(path)
    with Store(path) as store, StoreReader(path) as reader:
        *_, unseen, seen, bird, left = sorted(reader.alerts(10), key=lambda alert: alert.id)
        assert [alert.acknowledged_utc_ns for alert in (unseen, seen, bird, left)] == [None, 100, 200, None]
        assert [alert.opened_as for alert in (unseen, seen, bird, left)] == ["unknown", "uav", "unknown", "uav"]
        assert (unseen.label, unseen.severity, unseen.highest_severity) == ("uav", "alarm", "alarm")
        assert (bird.verdict, bird.reviewed_utc_ns, bird.dismissed_as, bird.dismissed_utc_ns) == (
            "bird",
            200,
            "bird",
            200,
        )
        assert (bird.label, bird.highest_label) == ("bird", "unknown")
        assert {alert.state for alert in reader.alerts(10)} == {"ended"} and unseen.snapshot == "a.jpg"
        assert [item.id for item in unseen.tracks] == [1]
        assert [event.alert for event in store.orphaned] == [left.id]
        assert len(reader.events(100)) == 10 and reader.cursor("jsonl:events.jsonl") == 7
        assert reader.alerts(10, unacknowledged=True) == [left, unseen]
        store.append(raised(track(9)))
        assert len(reader.alerts(10)) == 5
    with closing(sqlite3.connect(path)) as connection:
        stored = dict(connection.execute("SELECT id, alert FROM events"))
        assert stored["01EVENT0000000000000000007"] == unseen.id, "old events belong to their alerts"
    Store(path.with_name("new.sqlite")).close()
    assert shape(path) == shape(path.with_name("new.sqlite"))


def test_a_store_of_version_5_learns_which_rules_raised_its_alerts(path: Path) -> None:
    with Store(path) as store:
        by_rule, by_default = raised(track(1), rule="perimeter"), raised(track(2))
        store.append(by_rule + by_default)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("ALTER TABLE alerts DROP COLUMN rule; PRAGMA user_version = 5;")
    with Store(path) as store, StoreReader(path) as reader:
        rules = {alert.id: alert.rule for alert in reader.alerts(10)}
        assert rules == {by_rule[0].id: "perimeter", by_default[0].id: None}
        store.append([event(ESCALATED, track(1, 2), alert=by_rule[0].id, rule="gate")])
        alert = reader.alert(by_rule[0].id)
        assert alert is not None and alert.rule == "gate", "the one that asks for attention now"


def shape(path: Path) -> dict[str, set[str]]:
    """The columns of all tables and indices, whose order may differ."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema")]
        return {
            name: {str(row[1:]) for row in connection.execute(f"PRAGMA table_xinfo('{name}')")}
            | {str(row[2]) for row in connection.execute(f"PRAGMA index_info('{name}')")}
            for name in names
        }
