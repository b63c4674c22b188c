"""The embedded store: all events, and the newest state of every track and alert.

In: events and tracks of the track worker.  Out: the same to any number of readers, in this and in other processes, and
to the outbox.  There is one writer, beside operators' reviews.  `alert.opened` opens an alert, which follows its tracks
until it ends.
"""

import os
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.store.alert import Unacknowledged
from pipeline.store.alert_events import orphaned
from pipeline.store.encoding import alert_columns, event_row, review_columns, seen_columns, track_row
from pipeline.store.salvage import take_over
from pipeline.store.schema import (
    BUSY_TIMEOUT_S,
    enable_incremental_vacuum,
    failures,
    identity,
    lock_writer,
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

_CHANGES = {
    EventKind.ALERT_OPENED: OPEN_ALERT,
    EventKind.ALERT_ESCALATED: ESCALATE_ALERT,
    EventKind.ALERT_LOWERED: LOWER_ALERT,
}


class Store:
    """The writer's side: one per store, in one thread.

    Alerts that a crashed writer left active are ended when it is opened.

    Args:
        path: of its file.
        busy_timeout_s: how long to wait for another process's transaction.
        continued: ids of alerts that this process has open, and goes on with; None: another host may have any open.
        damaged: a store that this one replaces, of which what can be read is taken over.

    Attributes:
        orphaned: the events of the alerts that were ended.
        taken_over: how many rows of the damaged store are in this one.

    Raises:
        StoreError: it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        continued: Collection[str] | None = (),
        damaged: Path | None = None,
    ) -> None:
        self._path = path
        self._connection = open_writable(path, busy_timeout_s)
        self._lock = -1
        try:
            self._lock = lock_writer(path)
            self.taken_over = take_over(self._connection, path, damaged) if damaged is not None else 0
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

    def undelivered(self) -> int:
        """Return how many events the sink that is furthest behind has not acknowledged."""
        query = "SELECT count(*) FROM events WHERE row > (SELECT min(row) FROM cursors)"
        with failures(self._path):
            return int(self._connection.execute(query).fetchone()[0])

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
