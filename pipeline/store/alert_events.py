"""Events of alerts that no frame causes: operators' reviews, and the end of what a crashed process left.  Pure.

They hold the alert's track as it was last seen, and their own time.
"""

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
    )
