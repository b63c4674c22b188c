"""Events of alerts that no frame causes: operators' reviews, and the end of what a crashed process left.  Pure.

They hold the alert's track as it was last seen, and their own time.
"""

import msgspec

from pipeline.ids import derived_ulid
from pipeline.types import Event, EventKind, Severity, Track, Verdict


def alert_event(
    kind: EventKind,
    alert: str,
    camera: str,
    track: Track | None,
    time_utc_ns: int,
    verdict: Verdict | None = None,
    note: str | None = None,
    by: str | None = None,
) -> Event:
    """Return an event of an alert; without its track, which the store may have lost, there is no frame of it."""
    seen = track.last_seen if track is not None else None
    return Event(
        id=derived_ulid(time_utc_ns, alert, kind, str(time_utc_ns)),
        kind=kind,
        severity=Severity.INFO,
        camera=camera,
        time_utc_ns=time_utc_ns,
        pts_s=seen.pts_s if seen else 0.0,
        frame=seen.seq if seen else 0,
        session=seen.session if seen else "",
        track=track,
        alert=alert,
        verdict=verdict,
        note=note,
        by=by,
    )


def orphaned(alert: str, camera: str, last_seen_utc_ns: int, track: bytes | None) -> Event:
    """Return the end of an alert that a crashed writer left active: when its target, JSON, was last seen."""
    seen = msgspec.json.decode(track, type=Track) if track is not None else None
    return alert_event(EventKind.ALERT_ENDED, alert, camera, seen, last_seen_utc_ns)
