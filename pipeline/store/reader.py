"""The readers' side of the store: events, tracks and alerts, for any number of readers in this and in other processes.

In: the path of a store.  Out: what is stored, as of its last commit.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from pipeline.errors import DamagedStoreError, StoreError
from pipeline.store.alert import SELECT_ALERTS, Alert, State, alert_of
from pipeline.store.schema import failures, identity, open_readonly, sequence
from pipeline.types import Event, EventKind, Track

T = TypeVar("T")


class StoredEvent(NamedTuple):
    """An event and its row number, which grows with every event."""

    row: int
    event: Event


class StoreReader:
    """Reads a store: never blocks the writer, and sees every commit at the next call.  Thread-safe."""

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
        except (msgspec.ValidationError, TypeError) as error:
            raise StoreError(f"{self._path}: contains data that this version cannot read: {error}") from error
        except msgspec.DecodeError as error:
            raise DamagedStoreError(f"{self._path}: is damaged ({error})") from error

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
