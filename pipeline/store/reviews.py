"""Operators' reviews of alerts: acknowledged, given a verdict, reopened; and pinned.

In: an alert's id, the review, and who gives it.  Out: the review in the alert's row, its events in the table from which
the outbox serves the sinks, and the action in the audit log.  All in one transaction, in whatever process the operator
is served by: so a review has its events once, also if that process or the track worker dies, and a review does not wait
for the track worker.  The track worker never changes these columns, except that an escalation asks for acknowledgement
anew.
"""

import sqlite3
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline.store.actions import ON_HOST, ActionKind, Actor, insert, writing
from pipeline.store.alert_events import alert_event
from pipeline.store.encoding import event_row
from pipeline.store.history_reader import seen_by
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
        self, kind: EventKind, time_utc_ns: int, by: Actor, verdict: Verdict | None = None, note: str | None = None
    ) -> Event:
        track = msgspec.json.decode(self.track, type=Track) if self.track is not None else None
        return alert_event(kind, self.alert, self.camera, track, time_utc_ns, verdict, note, by.user or None)


def acknowledge(path: Path, alert: str, time_utc_ns: int, by: Actor = ON_HOST) -> list[Event] | None:
    """Acknowledge an alert.

    Returns:
        The events, none where it was acknowledged before; None where there is no such alert.

    Raises:
        StoreError: the store cannot be written.
    """
    with writing(path) as connection:
        state = _state(connection, alert)
        return None if state is None else _acknowledge(connection, state, time_utc_ns, by)


def acknowledge_ended(
    path: Path, time_utc_ns: int, by: Actor = ON_HOST, cameras: Collection[str] | None = None
) -> list[Event]:
    """Acknowledge all alerts that have ended, or those of these cameras; return the events.  Raise StoreError."""
    condition, values = ("1", ()) if cameras is None else seen_by(cameras)
    with writing(path) as connection:
        ended = f"alerts.state = 'ended' AND acknowledged_utc_ns IS NULL AND {condition}"
        states = _states(connection, ended, *values)
        return [event for state in states for event in _acknowledge(connection, state, time_utc_ns, by)]


def review(
    path: Path, alert: str, verdict: Verdict | None, note: str | None, time_utc_ns: int, by: Actor = ON_HOST
) -> list[Event] | None:
    """Give an alert a verdict, which acknowledges it, or withdraw it with None.  The last one counts.

    Returns and raises as `acknowledge`.
    """
    with writing(path) as connection:
        state = _state(connection, alert)
        if state is None:
            return None
        if (state.verdict, state.note) == (verdict, note):
            return []
        events = _acknowledge(connection, state, time_utc_ns, by) if verdict is not None else []
        reviewed_utc_ns = time_utc_ns if verdict is not None else None
        connection.execute(_REVIEW, (verdict, note, reviewed_utc_ns, alert))
        reviewed = state.event(EventKind.ALERT_REVIEWED, time_utc_ns, by, verdict, note)
        said = ": ".join(filter(None, (verdict or "withdrawn", note)))
        _insert_action(connection, state, by, ActionKind.REVIEW, time_utc_ns, said)
        return [*events, _insert(connection, reviewed)]


def reopen(path: Path, alert: str, time_utc_ns: int, by: Actor = ON_HOST) -> list[Event] | None:
    """Withdraw an alert's verdict and acknowledgement.  Returns and raises as `acknowledge`."""
    with writing(path) as connection:
        state = _state(connection, alert)
        if state is None:
            return None
        if state.acknowledged_utc_ns is None and state.verdict is None:
            return []
        connection.execute(_REVIEW, (None, None, None, alert))
        connection.execute(_ACKNOWLEDGE, (None, alert))
        _insert_action(connection, state, by, ActionKind.REOPEN, time_utc_ns)
        return [_insert(connection, state.event(EventKind.ALERT_REOPENED, time_utc_ns, by))]


def pin(path: Path, alert: str, time_utc_ns: int | None, by: Actor = ON_HOST) -> bool:
    """Pin an alert, so that retention keeps all of it, or with None unpin it.

    Returns:
        False where there is no such alert.

    Raises:
        StoreError: the store cannot be written.
    """
    with writing(path) as connection:
        state = _state(connection, alert)
        if state is None:
            return False
        connection.execute(_PIN, (time_utc_ns, alert))
        kind = ActionKind.UNPIN if time_utc_ns is None else ActionKind.PIN
        _insert_action(connection, state, by, kind, time_utc_ns or time.time_ns())
        return True


def _acknowledge(connection: sqlite3.Connection, state: _State, time_utc_ns: int, by: Actor) -> list[Event]:
    if state.acknowledged_utc_ns is not None:
        return []
    connection.execute(_ACKNOWLEDGE, (time_utc_ns, state.alert))
    _insert_action(connection, state, by, ActionKind.ACKNOWLEDGE, time_utc_ns)
    return [_insert(connection, state.event(EventKind.ALERT_ACKNOWLEDGED, time_utc_ns, by))]


def _insert(connection: sqlite3.Connection, event: Event) -> Event:
    connection.execute(INSERT_EVENT, event_row(event))
    return event


def _insert_action(
    connection: sqlite3.Connection, state: _State, by: Actor, kind: ActionKind, time_utc_ns: int, detail: str = ""
) -> None:
    insert(connection, by, kind, time_utc_ns, alert=state.alert, camera=state.camera, detail=detail)


def _state(connection: sqlite3.Connection, alert: str) -> _State | None:
    return next(iter(_states(connection, "alerts.id = ?", alert)), None)


def _states(connection: sqlite3.Connection, condition: str, *values: object) -> list[_State]:
    return [_State(*row) for row in connection.execute(_STATES + condition, values).fetchall()]
