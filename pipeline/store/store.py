"""The embedded store: all events, and the newest state of every track and alert.

In: events and tracks of the track worker.  Out: the same to any number of readers, in this and in other processes, and
to the outbox.  There is one writer, beside operators' reviews.  `alert.opened` opens an alert, which follows its tracks
until it ends.
"""

import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from pipeline.errors import StoreError
from pipeline.store.alert import SELECT_ALERTS, Alert, State, Unacknowledged, alert_of
from pipeline.store.alert_events import orphaned
from pipeline.store.encoding import alert_columns, event_row, review_columns, seen_columns, track_row
from pipeline.store.schema import (
    BUSY_TIMEOUT_S,
    enable_incremental_vacuum,
    failures,
    identity,
    lock_writer,
    open_readonly,
    open_writable,
    sequence,
    side_files,
    transaction,
)
from pipeline.store.statements import (
    ACTIVE_ALERTS,
    END_ALERT,
    END_ORPHANED_TRACKS,
    ESCALATE_ALERT,
    FOLLOW_TRACK,
    FORGET_SNAPSHOT,
    INSERT_EVENT,
    LOWER_ALERT,
    OPEN_ALERT,
    REVIEWS,
    UNACKNOWLEDGED,
    UPSERT_TRACK,
)
from pipeline.types import Event, EventKind, Severity, Track, TrackState

T = TypeVar("T")
_CHANGES = {
    EventKind.ALERT_OPENED: OPEN_ALERT,
    EventKind.ALERT_ESCALATED: ESCALATE_ALERT,
    EventKind.ALERT_LOWERED: LOWER_ALERT,
}


class StoredEvent(NamedTuple):
    """An event and its row number, which grows with every event."""

    row: int
    event: Event


class Store:
    """The writer's side: one per store, in one thread.

    Alerts that a crashed writer left active are ended when it is opened.

    Args:
        path: of its file.
        busy_timeout_s: how long to wait for another process's transaction.
        continued: ids of alerts that this process has open, and goes on with; None: another host may have any open.

    Attributes:
        orphaned: the events of the alerts that were ended.

    Raises:
        StoreError: it cannot be opened.
    """

    def __init__(
        self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S, continued: Collection[str] | None = ()
    ) -> None:
        self._path = path
        self._connection = open_writable(path, busy_timeout_s)
        self._lock = -1
        try:
            self._lock = lock_writer(path)
            self.orphaned = self.end_orphans(continued) if continued is not None else []
        except BaseException:
            self.close()
            raise
        self._files = {each: identity(each) for each in (path, *side_files(path))}

    def is_current(self) -> bool:
        """Return False where the file was deleted or replaced since it was opened."""
        return identity(self._path) == self._files[self._path]

    def discard_side_files(self) -> None:
        """Delete the write-ahead log of a replaced file: SQLite would apply it to the new file."""
        for path in side_files(self._path):
            if self._files[path] is not None and identity(path) == self._files[path]:
                path.unlink(missing_ok=True)

    def enable_incremental_vacuum(self) -> None:
        """Rewrite a store that was created without incremental vacuum.  Raise StoreError."""
        enable_incremental_vacuum(self._connection, self._path)

    def sequence(self) -> int:
        """Return the row of the newest event ever stored; 0 where there was none."""
        with failures(self._path):
            return sequence(self._connection)

    def unacknowledged(self) -> list[Unacknowledged]:
        """Return how many alerts wait for an operator, and since when."""
        with failures(self._path):
            rows = self._connection.execute(UNACKNOWLEDGED).fetchall()
        return [Unacknowledged(camera, Severity(severity), *counted) for camera, severity, *counted in rows]

    def end_orphans(self, continued: Collection[str] = ()) -> list[Event]:
        """End the alerts and tracks that an earlier writer left active, but for these; return the alerts' events."""
        with transaction(self._connection, self._path) as connection:
            active = connection.execute(ACTIVE_ALERTS).fetchall()
            events = [orphaned(*row) for row in active if row[0] not in continued]
            for event in events:
                self._append(connection, event)
            connection.execute(END_ORPHANED_TRACKS)
            return events

    def restore(self, events: Iterable[Event]) -> None:
        """Let alerts that this file does not hold be as after these events, without storing the events."""
        with transaction(self._connection, self._path) as connection:
            held = {alert for (alert,) in connection.execute("SELECT id FROM alerts")}
            for event in events:
                if event.alert not in held:
                    self._apply(connection, event)

    def forget_snapshots(self, names: Sequence[str]) -> None:
        """Remove references to snapshots that were not written."""
        with transaction(self._connection, self._path, is_durable=False) as connection:
            connection.executemany(FORGET_SNAPSHOT, ((name,) for name in names))

    def append(self, events: Iterable[Event]) -> int:
        """Store new events in order, update their tracks and alerts, and return how many were new."""
        with transaction(self._connection, self._path) as connection:
            return sum(self._append(connection, event) for event in events)

    def update_tracks(self, tracks: Iterable[Track]) -> None:
        """Store the state of tracks, and let their alerts follow; omit tentative tracks."""
        known = [track for track in tracks if track.state is not TrackState.TENTATIVE]
        if not known:
            return
        with transaction(self._connection, self._path, is_durable=False) as connection:
            connection.executemany(UPSERT_TRACK, (track_row(track, None) for track in known))
            connection.executemany(FOLLOW_TRACK, map(seen_columns, known))

    def _append(self, connection: sqlite3.Connection, event: Event) -> int:
        if not connection.execute(INSERT_EVENT, event_row(event)).rowcount:
            return 0
        self._apply(connection, event)
        return 1

    def _apply(self, connection: sqlite3.Connection, event: Event) -> None:
        """Let the tracks and alerts be as after an event."""
        track = event.track
        if event.is_review:  # of another host, whose track may be older than this one's
            connection.execute(REVIEWS[event.kind], review_columns(event))
        elif track is not None:
            connection.execute(UPSERT_TRACK, track_row(track, event.alert))
            if event.kind in _CHANGES and event.alert is not None:
                connection.execute(_CHANGES[event.kind], alert_columns(event, track))
            connection.execute(FOLLOW_TRACK, seen_columns(track))
        if event.ends_alert:
            connection.execute(END_ALERT, {"id": event.alert, "time": event.time_utc_ns})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the store and release the writer's lock."""
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class StoreReader:
    """The readers' side: never blocks the writer, and sees every commit at the next call.  Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_readonly(path)
        self._file = identity(path)
        self._lock = threading.Lock()

    def is_current(self) -> bool:
        """Return False where the file was deleted or replaced since it was opened."""
        return identity(self._path) == self._file

    def events(self, limit: int, after: int | None = None) -> list[StoredEvent]:
        """Return events, oldest first: the first after row `after`, or without it the newest."""
        if after is None:
            rows = self._query("SELECT row, payload FROM events ORDER BY row DESC LIMIT ?", limit)[::-1]
        else:
            rows = self._query("SELECT row, payload FROM events WHERE row > ? ORDER BY row LIMIT ?", after, limit)
        return [StoredEvent(row, self._decode(Event, payload)) for row, payload in rows]

    def newest(self, camera: str, kinds: Sequence[EventKind]) -> Event | None:
        """Return the newest event of a camera and of one of these kinds, or None."""
        query = f"SELECT payload FROM events WHERE camera = ? AND kind IN ({', '.join('?' * len(kinds))})"
        rows = self._query(f"{query} ORDER BY row DESC LIMIT 1", camera, *kinds)
        return self._decode(Event, rows[0][0]) if rows else None

    def alerts(self, limit: int, state: State | None = None, unacknowledged: bool = False) -> list[Alert]:
        """Return alerts, newest first: all, those of a state, or those that wait for an operator, alarms first."""
        conditions = [f"state = '{state}'"] if state else []
        conditions += ["acknowledged_utc_ns IS NULL"] if unacknowledged else []
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        first = "highest_severity = 'alarm' DESC, " if unacknowledged else ""
        query = f"{SELECT_ALERTS} {where} ORDER BY {first}opened_utc_ns DESC, id DESC LIMIT ?"
        return [self._alert(row) for row in self._query(query, limit)]

    def alert(self, alert_id: str) -> Alert | None:
        """Return an alert, or None where there is no such alert."""
        rows = self._query(f"{SELECT_ALERTS} WHERE id = ?", alert_id)
        return self._alert(rows[0]) if rows else None

    def tracks(self, limit: int) -> list[Track]:
        """Return tracks, last seen first."""
        query = "SELECT payload FROM tracks ORDER BY last_seen_utc_ns DESC, ulid DESC LIMIT ?"
        return [self._decode(Track, payload) for (payload,) in self._query(query, limit)]

    def row_of(self, event_id: str) -> int | None:
        """Return the row of an event, or None where it is not stored."""
        rows = self._query("SELECT row FROM events WHERE id = ?", event_id)
        return int(rows[0][0]) if rows else None

    def last_row(self) -> int:
        """Return the row of the newest event in the store; 0 where there is none."""
        return int(self._query("SELECT coalesce(max(row), 0) FROM events")[0][0])

    def sequence(self) -> int:
        """Return the row of the newest event ever stored, even if deleted since; 0 where there was none."""
        with self._lock, failures(self._path):
            return sequence(self._connection)

    def cursor(self, sink: str) -> int:
        """Return the row of the last event that the sink acknowledged; 0 where there was none."""
        rows = self._query("SELECT row FROM cursors WHERE sink = ?", sink)
        return int(rows[0][0]) if rows else 0

    def backlog(self, sink: str) -> int:
        """Return how many events the sink has not acknowledged."""
        cursor = self.cursor(sink)
        ((first, last),) = self._query("SELECT coalesce(min(row), 0), coalesce(max(row), 0) FROM events")
        return max(0, int(last) - max(cursor, int(first) - 1))

    def oldest_waiting(self, sink: str) -> int | None:
        """Return the time of the oldest event that the sink has not acknowledged, UTC in ns, or None."""
        query = "SELECT time_utc_ns FROM events WHERE row > ? ORDER BY row LIMIT 1"
        rows = self._query(query, self.cursor(sink))
        return int(rows[0][0]) if rows else None

    def _alert(self, row: tuple[Any, ...]) -> Alert:
        with self._readable():
            return alert_of(row)

    def _decode(self, kind: type[T], payload: bytes) -> T:
        with self._readable():
            return msgspec.json.decode(payload, type=kind)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (msgspec.DecodeError, TypeError) as error:
            raise StoreError(f"{self._path}: contains data that this version cannot read: {error}") from error

    def _query(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, failures(self._path):
            return self._connection.execute(query, values).fetchall()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            self._connection.close()
