"""Events and tracks as rows of the store."""

import msgspec

from pipeline.errors import StoreError
from pipeline.types import Event, EventKind, Track


def event_row(event: Event) -> tuple[object, ...]:
    """Return the values of INSERT_EVENT.  Raise StoreError."""
    key = (event.id, event.kind, event.severity, event.camera, event.time_utc_ns)
    return (*key, event.alert, encoded(event))


def track_row(track: Track, alert: str | None) -> tuple[object, ...]:
    """Return the values of UPSERT_TRACK.  Raise StoreError."""
    seen = (track.first_seen.received_utc_ns, track.last_seen.received_utc_ns)
    key = (track.ulid, track.camera, track.session, track.id)
    return (*key, track.label, track.state, *seen, track.hits, track.score, alert, encoded(track))


def seen_columns(track: Track) -> tuple[object, ...]:
    """Return the columns of an alert that follow its track, and the track's camera.

    They are track, evidence, score, xyxy, last_seen_utc_ns.
    """
    evidence, xyxy = (msgspec.json.encode(item).decode() for item in (track.evidence, track.xyxy))
    return track.ulid, evidence, track.score, xyxy, track.last_seen.received_utc_ns, track.camera


def alert_columns(event: Event, track: Track) -> dict[str, object]:
    """Return the values of a statement that opens or changes an alert."""
    names = ("track", "evidence", "score", "xyxy", "seen")
    return dict(zip(names, seen_columns(track)[:-1], strict=True)) | {
        "id": event.alert,
        "camera": event.camera,
        "severity": event.severity,
        "label": track.label,
        "was": event.was,
        "rule": event.rule,
        "snapshot": event.snapshot,
        "crop": event.crop,
        "time": event.time_utc_ns,
        "escalated": event.time_utc_ns if event.kind is EventKind.ALERT_ESCALATED else None,
    }


def review_columns(event: Event) -> dict[str, object]:
    """Return the values of a statement of REVIEWS."""
    return {"id": event.alert, "time": event.time_utc_ns, "verdict": event.verdict, "note": event.note}


def encoded(item: Event | Track) -> bytes:
    """Return the item as JSON.  Raise StoreError for NaN, which JSON does not have and readers would reject."""
    payload = msgspec.json.encode(item)
    try:
        msgspec.json.decode(payload, type=type(item))
    except msgspec.ValidationError as error:
        raise StoreError(f"{type(item).__name__} of {item.camera!r} cannot be stored: {error}") from error
    return payload
