"""The embedded store: all events, and the newest state of every track and alert.

In: events and tracks of the track worker.  Out: the same to any number of readers, in this and in other processes, and
to the outbox.  There is one writer.  `track.confirmed` opens an alert, which follows its track until `track.lost` ends
it.
"""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

import msgspec

from pipeline.errors import StoreError
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
    END_ALERT,
    END_ORPHANED_ALERTS,
    END_ORPHANED_TRACKS,
    FORGET_SNAPSHOT,
    INSERT_EVENT,
    OPEN_ALERT,
    UPDATE_ALERT,
    UPSERT_TRACK,
)
from pipeline.types import DismissReason, Event, EventKind, Severity, Track, TrackState

T = TypeVar("T")


class Alert(msgspec.Struct, frozen=True):
    """An alert: one track of a target."""

    id: str  # id of the event that opened it
    track: str  # ULID
    camera: str
    severity: Severity
    label: str
    evidence: dict[str, float]
    score: float
    xyxy: tuple[float, float, float, float]  # last box, frame pixels
    snapshot: str | None
    opened_utc_ns: int
    last_seen_utc_ns: int
    ended_utc_ns: int | None
    state: Literal["active", "ended"]
    acknowledged_utc_ns: int | None = None
    dismissed_utc_ns: int | None = None
    dismissed_as: DismissReason | None = None


class StoredEvent(NamedTuple):
    """An event and its row number, which grows with every event."""

    row: int
    event: Event


_ALERT_FIELDS = ", ".join(Alert.__struct_fields__)


class Store:
    """The writer's side: one per store, in one thread.  Alerts that a crashed writer left active are ended."""

    def __init__(self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._connection = open_writable(path, busy_timeout_s)
        self._lock = -1
        try:
            self._lock = lock_writer(path)
            self.end_orphans()
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

    def end_orphans(self) -> None:
        """End the alerts and tracks that an earlier writer left active."""
        with transaction(self._connection, self._path) as connection:
            connection.execute(END_ORPHANED_ALERTS)
            connection.execute(END_ORPHANED_TRACKS)

    def restore(self, events: Iterable[Event]) -> None:
        """Open the alerts of these events without storing the events again."""
        with transaction(self._connection, self._path) as connection:
            for event in events:
                if event.track is not None:
                    connection.execute(UPSERT_TRACK, self._track_row(event.track))
                    self._open_alert(connection, event, event.track)

    def forget_snapshots(self, names: Sequence[str]) -> None:
        """Remove references to snapshots that were not written."""
        with transaction(self._connection, self._path) as connection:
            connection.executemany(FORGET_SNAPSHOT, ((name,) for name in names))

    def append(self, events: Iterable[Event]) -> int:
        """Store new events in order, update their tracks and alerts, and return how many were new."""
        with transaction(self._connection, self._path) as connection:
            return sum(self._append(connection, event) for event in events)

    def update_tracks(self, tracks: Iterable[Track]) -> None:
        """Store the state of tracks and their alerts; omit tentative tracks, and end the alerts of lost ones."""
        known = [track for track in tracks if track.state is not TrackState.TENTATIVE]
        if not known:
            return
        with transaction(self._connection, self._path) as connection:
            connection.executemany(UPSERT_TRACK, map(self._track_row, known))
            connection.executemany(UPDATE_ALERT, ((*_seen(track), track.ulid) for track in known))
            lost = [track for track in known if track.state is TrackState.LOST]
            connection.executemany(END_ALERT, ((t.last_seen.received_utc_ns, None, t.ulid) for t in lost))

    def _append(self, connection: sqlite3.Connection, event: Event) -> int:
        row = (event.id, event.kind, event.severity, event.camera, event.time_utc_ns, self._encode(event))
        if not connection.execute(INSERT_EVENT, row).rowcount:
            return 0
        track = event.track
        if track is None:
            return 1
        connection.execute(UPSERT_TRACK, self._track_row(track))
        if event.kind is EventKind.TRACK_CONFIRMED:
            self._open_alert(connection, event, track)
        else:
            connection.execute(UPDATE_ALERT, (*_seen(track), track.ulid))
        if event.kind is EventKind.TRACK_LOST:
            connection.execute(END_ALERT, (event.time_utc_ns, event.alert, track.ulid))
        return 1

    def _open_alert(self, connection: sqlite3.Connection, event: Event, track: Track) -> None:
        opened = (event.id, track.ulid, event.camera, event.severity, event.snapshot, event.time_utc_ns)
        connection.execute(OPEN_ALERT, (*opened, *_seen(track)))

    def _track_row(self, track: Track) -> tuple[object, ...]:
        seen = (track.first_seen.received_utc_ns, track.last_seen.received_utc_ns)
        key = (track.ulid, track.camera, track.session, track.id)
        return (*key, track.label, track.state, *seen, track.hits, track.score, self._encode(track))

    def _encode(self, item: Event | Track) -> bytes:
        try:
            return encoded(item)
        except StoreError as error:
            raise StoreError(f"{self._path}: {error}") from error

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


def encoded(item: Event | Track) -> bytes:
    """Return the item as JSON.  Raise StoreError for NaN, which JSON does not have and readers would reject."""
    payload = msgspec.json.encode(item)
    try:
        msgspec.json.decode(payload, type=type(item))
    except msgspec.ValidationError as error:
        raise StoreError(f"{type(item).__name__} of {item.camera!r} cannot be stored: {error}") from error
    return payload


def _seen(track: Track) -> tuple[object, ...]:
    """Return the columns of an alert that follow its track."""
    evidence, xyxy = (msgspec.json.encode(item).decode() for item in (track.evidence, track.xyxy))
    return track.label, evidence, track.score, xyxy, track.last_seen.received_utc_ns


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

    def alerts(self, limit: int, active_only: bool = False) -> list[Alert]:
        """Return alerts, newest first."""
        where = "WHERE state = 'active'" if active_only else ""
        query = f"SELECT {_ALERT_FIELDS} FROM alerts {where} ORDER BY opened_utc_ns DESC, id DESC LIMIT ?"
        return [self._alert(row) for row in self._query(query, limit)]

    def alert(self, alert_id: str) -> Alert | None:
        """Return an alert, or None where there is no such alert."""
        rows = self._query(f"SELECT {_ALERT_FIELDS} FROM alerts WHERE id = ?", alert_id)
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
        values = dict(zip(Alert.__struct_fields__, row, strict=True))
        with self._readable():
            values |= {name: msgspec.json.decode(values[name]) for name in ("evidence", "xyxy")}
            return msgspec.convert(values, Alert)

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
