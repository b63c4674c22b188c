"""Operators' reviews of alerts: acknowledged, given a verdict, reopened.

In: an alert's id and the review.  Out: the review in the alert's row, and its events in the table from which the outbox
serves the sinks.  Both in one transaction, in whatever process the operator is served by: so a review has its events
once, also if that process or the track worker dies, and a review does not wait for the track worker.  The track worker
never changes these columns, except that an escalation asks for acknowledgement anew.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline.errors import StoreError
from pipeline.store.alert_events import alert_event
from pipeline.store.encoding import event_row
from pipeline.store.schema import open_writable, transaction
from pipeline.store.statements import INSERT_EVENT
from pipeline.types import Event, EventKind, Track, Verdict

_STATES = """
SELECT alerts.id, alerts.camera, acknowledged_utc_ns, verdict, note, tracks.payload
FROM alerts LEFT JOIN tracks ON tracks.ulid = alerts.track WHERE
"""
_ACKNOWLEDGE = "UPDATE alerts SET acknowledged_utc_ns = ? WHERE id = ?"
_PIN = "UPDATE alerts SET pinned_utc_ns = ? WHERE id = ?"
_REVIEW = "UPDATE alerts SET verdict = ?, note = ?, reviewed_utc_ns = ? WHERE id = ?"


class _State(NamedTuple):
    alert: str
    camera: str
    acknowledged_utc_ns: int | None
    verdict: str | None
    note: str | None
    track: bytes | None

    def event(
        self, kind: EventKind, time_utc_ns: int, verdict: Verdict | None = None, note: str | None = None
    ) -> Event:
        track = msgspec.json.decode(self.track, type=Track) if self.track is not None else None
        return alert_event(kind, self.alert, self.camera, track, time_utc_ns, verdict, note)


def acknowledge(path: Path, alert: str, time_utc_ns: int) -> list[Event] | None:
    """Acknowledge an alert.

    Returns:
        The events, none where it was acknowledged before; None where there is no such alert.

    Raises:
        StoreError: the store cannot be written.
    """
    with _writing(path) as connection:
        state = _state(connection, alert)
        return None if state is None else _acknowledge(connection, state, time_utc_ns)


def acknowledge_ended(path: Path, time_utc_ns: int) -> list[Event]:
    """Acknowledge all alerts that have ended; return the events.  Raise StoreError."""
    with _writing(path) as connection:
        states = _states(connection, "alerts.state = 'ended' AND acknowledged_utc_ns IS NULL")
        return [event for state in states for event in _acknowledge(connection, state, time_utc_ns)]


def review(path: Path, alert: str, verdict: Verdict | None, note: str | None, time_utc_ns: int) -> list[Event] | None:
    """Give an alert a verdict, which acknowledges it, or withdraw it with None.  The last one counts.

    Returns and raises as `acknowledge`.
    """
    with _writing(path) as connection:
        state = _state(connection, alert)
        if state is None:
            return None
        if (state.verdict, state.note) == (verdict, note):
            return []
        events = _acknowledge(connection, state, time_utc_ns) if verdict is not None else []
        reviewed_utc_ns = time_utc_ns if verdict is not None else None
        connection.execute(_REVIEW, (verdict, note, reviewed_utc_ns, alert))
        reviewed = state.event(EventKind.ALERT_REVIEWED, time_utc_ns, verdict, note)
        return [*events, _insert(connection, reviewed)]


def reopen(path: Path, alert: str, time_utc_ns: int) -> list[Event] | None:
    """Withdraw an alert's verdict and acknowledgement.  Returns and raises as `acknowledge`."""
    with _writing(path) as connection:
        state = _state(connection, alert)
        if state is None:
            return None
        if state.acknowledged_utc_ns is None and state.verdict is None:
            return []
        connection.execute(_REVIEW, (None, None, None, alert))
        connection.execute(_ACKNOWLEDGE, (None, alert))
        return [_insert(connection, state.event(EventKind.ALERT_REOPENED, time_utc_ns))]


def pin(path: Path, alert: str, time_utc_ns: int | None) -> bool:
    """Pin an alert, so that retention keeps all of it, or with None unpin it.

    Returns:
        False where there is no such alert.

    Raises:
        StoreError: the store cannot be written.
    """
    with _writing(path) as connection:
        return bool(connection.execute(_PIN, (time_utc_ns, alert)).rowcount)


def _acknowledge(connection: sqlite3.Connection, state: _State, time_utc_ns: int) -> list[Event]:
    if state.acknowledged_utc_ns is not None:
        return []
    connection.execute(_ACKNOWLEDGE, (time_utc_ns, state.alert))
    return [_insert(connection, state.event(EventKind.ALERT_ACKNOWLEDGED, time_utc_ns))]


def _insert(connection: sqlite3.Connection, event: Event) -> Event:
    connection.execute(INSERT_EVENT, event_row(event))
    return event


def _state(connection: sqlite3.Connection, alert: str) -> _State | None:
    return next(iter(_states(connection, "alerts.id = ?", alert)), None)


def _states(connection: sqlite3.Connection, condition: str, *values: str) -> list[_State]:
    return [_State(*row) for row in connection.execute(_STATES + condition, values).fetchall()]


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise StoreError(f"{path}: no store yet")
    with closing(open_writable(path)) as connection, transaction(connection, path):
        yield connection
