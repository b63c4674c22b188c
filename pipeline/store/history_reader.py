"""Queries of the console's history: alerts, events and actions by filter and page, and what a time line shows."""

from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

from pipeline.store.actions import Action
from pipeline.store.alert import SELECT_ALERTS, Alert, AlertCount, State
from pipeline.store.reader import StoredEvent, StoreReader
from pipeline.types import Event, Severity, Track, Verdict

_CAMERA_STATES = "kind IN ('camera.up', 'camera.down', 'camera.blind')"  # as the index has it
_ACTION_CAMERA = "json_extract(CAST(payload AS TEXT), '$.camera')"
_COUNT_ALERTS = """
SELECT camera, ?1 + (opened_utc_ns - ?1) / ?3 * ?3 AS since, count(*), sum(highest_severity = 'alarm'), max(id)
FROM alerts WHERE opened_utc_ns >= ?1 AND opened_utc_ns < ?2 GROUP BY camera, since ORDER BY since
"""
Condition = tuple[str, tuple[object, ...]]  # SQL, and its parameters


class AlertFilter(NamedTuple):
    """Which alerts are asked for; None: any."""

    state: State | None = None
    is_unacknowledged: bool = False
    camera: str | None = None
    label: str | None = None  # at present, or the highest that it had
    severity: Severity | None = None  # the highest that it had
    verdict: Verdict | Literal["none"] | None = None
    since_utc_ns: int | None = None  # opened at this time or later
    before_utc_ns: int | None = None
    cameras: Collection[str] | None = None  # that the user sees; an alert is of all cameras that saw its target


class EventFilter(NamedTuple):
    """Which events are asked for; None: any."""

    camera: str | None = None
    alert: str | None = None
    since_utc_ns: int | None = None
    before_utc_ns: int | None = None
    cameras: Collection[str] | None = None  # that the user sees


class ActionFilter(NamedTuple):
    """Which actions are asked for; None: any."""

    user: str | None = None
    alert: str | None = None
    since_utc_ns: int | None = None
    before_utc_ns: int | None = None
    cameras: Collection[str] | None = None  # that the user sees; actions that concern no camera are seen by all


class HistoryReader(StoreReader):
    """A reader of the store that also searches it."""

    def search(self, wanted: AlertFilter, limit: int, after: Alert | None = None) -> list[Alert]:
        """Return alerts, newest first; unacknowledged ones: alarms first.

        Args:
            wanted: which ones.
            limit: how many at most.
            after: the last alert of the page before; None: the first page.
        """
        conditions = list(_alert_conditions(wanted))
        order = ("highest_severity = 'alarm'", "opened_utc_ns", "id")[0 if wanted.is_unacknowledged else 1 :]
        if after is not None:
            place = (after.highest_severity is Severity.ALARM, after.opened_utc_ns, after.id)[-len(order) :]
            conditions.append((f"({', '.join(order)}) < ({', '.join('?' * len(order))})", place))
        descending = ", ".join(f"{column} DESC" for column in order)
        where, values = _where(conditions)
        chosen = f"SELECT id FROM alerts {where} ORDER BY {descending} LIMIT ?"
        query = f"{SELECT_ALERTS} WHERE id IN ({chosen}) ORDER BY {descending}"
        return [self._alert(row) for row in self._query(query, *values, limit)]

    def search_events(self, wanted: EventFilter, limit: int, after: int | None = None) -> list[Event]:
        """Return events, oldest first: the first after row `after`, or without it the newest."""
        if after is not None:
            return [stored.event for stored in self.events_after(wanted, limit, after)]
        where, values = _where(_event_conditions(wanted))
        rows = self._query(f"SELECT payload FROM events {where} ORDER BY row DESC LIMIT ?", *values, limit)
        return [self._decode(Event, payload) for (payload,) in rows[::-1]]

    def events_after(self, wanted: EventFilter, limit: int, row: int) -> list[StoredEvent]:
        """Return the first events after a row, with their rows."""
        where, values = _where([*_event_conditions(wanted), ("row > ?", (row,))])
        rows = self._query(f"SELECT row, payload FROM events {where} ORDER BY row LIMIT ?", *values, limit)
        return [StoredEvent(row, self._decode(Event, payload)) for row, payload in rows]

    def search_actions(self, wanted: ActionFilter, limit: int, after: str | None = None) -> list[Action]:
        """Return actions, newest first: all, or those that were stored before the action with the id `after`."""
        conditions = [*_equal(user=wanted.user, alert=wanted.alert)]
        conditions += _between("time_utc_ns", wanted.since_utc_ns, wanted.before_utc_ns)
        conditions += [] if after is None else [("row < (SELECT row FROM actions WHERE id = ?)", (after,))]
        if wanted.cameras is not None:
            own, among = _among(_ACTION_CAMERA, wanted.cameras)
            conditions.append((f"({_ACTION_CAMERA} IS NULL OR {own})", among))
        where, values = _where(conditions)
        rows = self._query(f"SELECT payload FROM actions {where} ORDER BY row DESC LIMIT ?", *values, limit)
        return [self._decode(Action, payload) for (payload,) in rows]

    def tracks_of(self, cameras: Collection[str] | None, limit: int) -> list[Track]:
        """Return tracks of these cameras, or all; last seen first."""
        if cameras is None:
            return self.tracks(limit)
        condition, values = _among("camera", cameras)
        query = f"SELECT payload FROM tracks WHERE {condition} ORDER BY last_seen_utc_ns DESC, ulid DESC LIMIT ?"
        return [self._decode(Track, payload) for (payload,) in self._query(query, *values, limit)]

    def alert_counts(self, since_utc_ns: int, before_utc_ns: int, step_ns: int) -> list[AlertCount]:
        """Return how many alerts each camera opened in each step of a time line, without empty steps."""
        return [AlertCount(*row) for row in self._query(_COUNT_ALERTS, since_utc_ns, before_utc_ns, step_ns)]

    def camera_states(self, camera: str, since_utc_ns: int, before_utc_ns: int) -> list[Event]:
        """Return the events of a camera's state in this time, after the newest one before it; oldest first."""
        query = f"SELECT payload FROM events WHERE camera = ? AND {_CAMERA_STATES} AND time_utc_ns"
        rows = self._query(f"{query} < ? ORDER BY time_utc_ns DESC, row DESC LIMIT 1", camera, since_utc_ns)
        times = (since_utc_ns, before_utc_ns)
        rows += self._query(f"{query} BETWEEN ? AND ? ORDER BY time_utc_ns, row", camera, *times)
        return [self._decode(Event, payload) for (payload,) in rows]


def _alert_conditions(wanted: AlertFilter) -> Iterable[Condition]:
    yield from _equal(state=wanted.state, camera=wanted.camera, highest_severity=wanted.severity)
    if wanted.label is not None:
        yield "? IN (label, highest_label)", (wanted.label,)
    if wanted.is_unacknowledged:
        yield "acknowledged_utc_ns IS NULL", ()
    if wanted.verdict == "none":
        yield "verdict IS NULL", ()
    else:
        yield from _equal(verdict=wanted.verdict)
    yield from _between("opened_utc_ns", wanted.since_utc_ns, wanted.before_utc_ns)
    if wanted.cameras is not None:
        yield seen_by(wanted.cameras)


def _event_conditions(wanted: EventFilter) -> Iterable[Condition]:
    yield from _equal(camera=wanted.camera, alert=wanted.alert)
    yield from _between("time_utc_ns", wanted.since_utc_ns, wanted.before_utc_ns)
    if wanted.cameras is not None:
        yield _among("camera", wanted.cameras)


def seen_by(cameras: Collection[str]) -> Condition:
    """Return the condition of an alert whose target one of these cameras saw."""
    own, values = _among("alerts.camera", cameras)
    others, _ = _among("tracks.camera", cameras)
    return f"({own} OR EXISTS (SELECT 1 FROM tracks WHERE tracks.alert = alerts.id AND {others}))", values * 2


def _among(column: str, values: Collection[str]) -> Condition:
    return f"{column} IN ({', '.join('?' * len(values))})", tuple(values)


def _equal(**columns: str | None) -> Iterable[Condition]:
    return ((f"{column} = ?", (value,)) for column, value in columns.items() if value is not None)


def _between(column: str, since_utc_ns: int | None, before_utc_ns: int | None) -> Iterable[Condition]:
    bounds = ((">=", since_utc_ns), ("<", before_utc_ns))
    return ((f"{column} {sign} ?", (bound,)) for sign, bound in bounds if bound is not None)


def _where(conditions: Iterable[Condition]) -> tuple[str, list[object]]:
    """Return a WHERE clause and its parameters."""
    known = list(conditions)
    clause = f"WHERE {' AND '.join(text for text, _ in known)}" if known else ""
    return clause, [value for _, values in known for value in values]
