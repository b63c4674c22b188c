"""The embedded store: every event for good, and the newest state of every track and alert.

In: the track worker's Events and Tracks.  Out: the same to any number of readers, in this and in other processes, and
to the outbox.  One writer; a commit is one transaction for all of a frame's changes.  An alert is opened by
`track.confirmed`, follows its track, and is ended by `track.lost`.
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
    claim,
    failures,
    identity,
    make_shrinkable,
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
    """One track that somebody should look at."""

    id: str  # of the event that opened it
    track: str  # ULID
    camera: str
    severity: Severity
    label: str
    evidence: dict[str, float]
    score: float
    xyxy: tuple[float, float, float, float]  # where it was last seen, frame pixels
    snapshot: str | None
    opened_utc_ns: int
    last_seen_utc_ns: int
    ended_utc_ns: int | None
    state: Literal["active", "ended"]
    acknowledged_utc_ns: int | None = None  # when somebody said that they had seen it
    dismissed_utc_ns: int | None = None  # when somebody said that it is nothing, ...
    dismissed_as: DismissReason | None = None  # ... but this


class StoredEvent(NamedTuple):
    row: int  # grows with every event; what a sink's cursor holds
    event: Event


_ALERT_FIELDS = ", ".join(Alert.__struct_fields__)


class Store:
    """The writer's side.  One at a time, in one thread.  What a dead one left active is ended here."""

    def __init__(self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._connection = open_writable(path, busy_timeout_s)
        self._lock = -1
        try:
            self._lock = claim(path)
            self.end_orphans()
        except BaseException:
            self.close()
            raise
        self._files = {each: identity(each) for each in (path, *side_files(path))}

    def is_current(self) -> bool:
        """False: the file was deleted or replaced since it was opened."""
        return identity(self._path) == self._files[self._path]

    def discard_side_files(self) -> None:
        """Remove the write-ahead log of a file that was replaced: SQLite would apply it to the one in its place."""
        for path in side_files(self._path):
            if self._files[path] is not None and identity(path) == self._files[path]:
                path.unlink(missing_ok=True)

    def make_shrinkable(self) -> None:
        """See `schema.make_shrinkable`."""
        make_shrinkable(self._connection, self._path)

    def sequence(self) -> int:
        """The row of the newest event that was ever stored; 0: none."""
        with failures(self._path):
            return sequence(self._connection)

    def end_orphans(self) -> None:
        """End the alerts and tracks of a writer that is gone."""
        with transaction(self._connection, self._path) as connection:
            connection.execute(END_ORPHANED_ALERTS)
            connection.execute(END_ORPHANED_TRACKS)

    def restore(self, events: Iterable[Event]) -> None:
        """Open the alerts of these events, without storing the events again."""
        with transaction(self._connection, self._path) as connection:
            for event in events:
                if event.track is not None:
                    connection.execute(UPSERT_TRACK, self._track_row(event.track))
                    self._open_alert(connection, event, event.track)

    def forget_snapshots(self, names: Sequence[str]) -> None:
        """These files are not there."""
        with transaction(self._connection, self._path) as connection:
            connection.executemany(FORGET_SNAPSHOT, ((name,) for name in names))

    def append(self, events: Iterable[Event]) -> int:
        """Store events, in order, with what they mean for tracks and alerts.  Known ids are ignored.

        Returns how many were new.  They are safe from a crash of this process when it returns.
        """
        with transaction(self._connection, self._path) as connection:
            return sum(self._append(connection, event) for event in events)

    def update_tracks(self, tracks: Iterable[Track]) -> None:
        """The tracks' newest state, and that of their alerts.  Tentative ones are left out: most are noise.

        A lost track ends its alert, as its event does: that one may have been dropped while the store failed.
        """
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
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def encoded(item: Event | Track) -> bytes:
    """The item as JSON.  Raises StoreError for NaN, which JSON has not: every reader would fail later."""
    payload = msgspec.json.encode(item)
    try:
        msgspec.json.decode(payload, type=type(item))
    except msgspec.ValidationError as error:
        raise StoreError(f"{type(item).__name__} of {item.camera!r} is refused: {error}") from error
    return payload


def _seen(track: Track) -> tuple[object, ...]:
    """What an alert takes over from its track."""
    evidence, xyxy = (msgspec.json.encode(item).decode() for item in (track.evidence, track.xyxy))
    return track.label, evidence, track.score, xyxy, track.last_seen.received_utc_ns


class StoreReader:
    """The readers' side: never blocks the writer, and sees each of its commits at the next call.  Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_readonly(path)
        self._file = identity(path)
        self._turn = threading.Lock()

    def is_current(self) -> bool:
        """False: the file was deleted or replaced since it was opened."""
        return identity(self._path) == self._file

    def events(self, limit: int, after: int | None = None) -> list[StoredEvent]:
        """Oldest first: the first ones after the row `after`, or without it the newest ones."""
        if after is None:
            rows = self._query("SELECT row, payload FROM events ORDER BY row DESC LIMIT ?", limit)[::-1]
        else:
            rows = self._query("SELECT row, payload FROM events WHERE row > ? ORDER BY row LIMIT ?", after, limit)
        return [StoredEvent(row, self._decode(Event, payload)) for row, payload in rows]

    def alerts(self, limit: int, active_only: bool = False) -> list[Alert]:
        """The newest first."""
        where = "WHERE state = 'active'" if active_only else ""
        query = f"SELECT {_ALERT_FIELDS} FROM alerts {where} ORDER BY opened_utc_ns DESC, id DESC LIMIT ?"
        return [self._alert(row) for row in self._query(query, limit)]

    def alert(self, alert_id: str) -> Alert | None:
        rows = self._query(f"SELECT {_ALERT_FIELDS} FROM alerts WHERE id = ?", alert_id)
        return self._alert(rows[0]) if rows else None

    def tracks(self, limit: int) -> list[Track]:
        """The last seen first."""
        query = "SELECT payload FROM tracks ORDER BY last_seen_utc_ns DESC, ulid DESC LIMIT ?"
        return [self._decode(Track, payload) for (payload,) in self._query(query, limit)]

    def row_of(self, event_id: str) -> int | None:
        rows = self._query("SELECT row FROM events WHERE id = ?", event_id)
        return int(rows[0][0]) if rows else None

    def last_row(self) -> int:
        """0: no event."""
        return int(self._query("SELECT coalesce(max(row), 0) FROM events")[0][0])

    def sequence(self) -> int:
        """The row of the newest event that was ever stored, also where it was deleted since; 0: none."""
        with self._turn, failures(self._path):
            return sequence(self._connection)

    def cursor(self, sink: str) -> int:
        """The row of the last event that the sink has acknowledged; 0: none."""
        rows = self._query("SELECT row FROM cursors WHERE sink = ?", sink)
        return int(rows[0][0]) if rows else 0

    def backlog(self, sink: str) -> int:
        """How many events the sink has not acknowledged."""
        cursor = self.cursor(sink)
        ((first, last),) = self._query("SELECT coalesce(min(row), 0), coalesce(max(row), 0) FROM events")
        return max(0, int(last) - max(cursor, int(first) - 1))

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
            raise StoreError(f"{self._path}: holds what this version cannot read: {error}") from error

    def _query(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._turn, failures(self._path):
            return self._connection.execute(query, values).fetchall()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._turn:
            self._connection.close()
