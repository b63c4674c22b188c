"""Alerts as the store holds them."""

from typing import Any, Literal, NamedTuple

import msgspec

from pipeline.types import DISMISSALS, Severity, TrackState, Verdict

State = Literal["active", "ended"]


class AlertTrack(msgspec.Struct, frozen=True):
    """A track of an alert."""

    ulid: str
    camera: str
    id: int
    label: str
    state: TrackState


class Alert(msgspec.Struct, frozen=True):
    """An alert: the tracks that one target left, what it was taken for, and what an operator said of it."""

    id: str  # id of the `track.confirmed` event of its first track
    track: str  # ULID of the one that was seen last
    camera: str
    severity: Severity  # at present, as its label
    label: str
    opened_as: str  # its first label
    highest_severity: Severity
    highest_label: str
    rule: str | None  # name of the rule that raised it last; None: the default
    evidence: dict[str, float]
    score: float
    xyxy: tuple[float, float, float, float]  # last box, frame pixels
    snapshot: str | None  # of when it was opened, or last escalated
    crop: str | None
    opened_utc_ns: int
    last_seen_utc_ns: int
    escalated_utc_ns: int | None
    ended_utc_ns: int | None
    state: State
    acknowledged_utc_ns: int | None
    verdict: Verdict | None
    note: str | None
    reviewed_utc_ns: int | None
    pinned_utc_ns: int | None  # retention does not delete it
    dismissed_utc_ns: int | None  # where the verdict is not a uav
    dismissed_as: Verdict | None
    tracks: list[AlertTrack]  # in the order of their beginning


class AlertCount(msgspec.Struct, frozen=True):
    """The alerts that a camera opened in one step of a time line."""

    camera: str
    since_utc_ns: int  # start of the step
    alerts: int
    alarms: int  # of them
    newest: str  # id


class Unacknowledged(NamedTuple):
    """The alerts of a camera that wait for an operator, by the highest severity that they had."""

    camera: str
    severity: Severity
    alerts: int
    oldest_utc_ns: int  # when acknowledgement of the oldest one was asked


_DISMISSALS = ", ".join(f"'{verdict}'" for verdict in DISMISSALS)
_DERIVED = {
    "dismissed_utc_ns": f"CASE WHEN verdict IN ({_DISMISSALS}) THEN reviewed_utc_ns END",
    "dismissed_as": f"CASE WHEN verdict IN ({_DISMISSALS}) THEN verdict END",
    "tracks": """(SELECT json_group_array(
json_object('ulid', ulid, 'camera', camera, 'id', id, 'label', label, 'state', state))
FROM (SELECT * FROM tracks WHERE tracks.alert = alerts.id ORDER BY first_seen_utc_ns, id))""",
}
SELECT_ALERTS = f"SELECT {', '.join(_DERIVED.get(name, name) for name in Alert.__struct_fields__)} FROM alerts"


def alert_of(row: tuple[Any, ...]) -> Alert:
    """Return the alert of a row of SELECT_ALERTS.  Raise msgspec.DecodeError or TypeError."""
    values = dict(zip(Alert.__struct_fields__, row, strict=True))
    values |= {name: msgspec.json.decode(values[name]) for name in ("evidence", "xyxy", "tracks")}
    return msgspec.convert(values, Alert)
