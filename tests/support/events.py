"""Events and tracks for tests of the store, the sinks and the console."""

import time
from collections.abc import Callable, Iterable

import msgspec
from ulid import ULID

from pipeline.types import Event, EventKind, FrameRef, Severity, Track, TrackState

START_NS = 1_790_000_000_000_000_000


CONFIRMED, LOST, LABELLED = EventKind.TRACK_CONFIRMED, EventKind.TRACK_LOST, EventKind.TRACK_LABELLED
OPENED, ENDED = EventKind.ALERT_OPENED, EventKind.ALERT_ENDED
ESCALATED, LOWERED = EventKind.ALERT_ESCALATED, EventKind.ALERT_LOWERED


def ref(seq: int, camera: str = "north") -> FrameRef:
    time_ns = seq * 40_000_000
    return FrameRef(camera, "s1", seq, seq * 0.04, time_ns, START_NS + time_ns)


def track(number: int, seq: int = 0, **changes: object) -> Track:
    first = Track(
        id=number,
        ulid=f"01K{number:023d}",
        camera="north",
        session="s1",
        state=TrackState.CONFIRMED,
        label="uav",
        evidence={"uav": 2.5, "bird": -1.0},
        xyxy=(10.0 + seq, 20.0, 30.0 + seq, 40.0),
        velocity_px_s=(25.0, 0.0),
        score=0.9,
        hits=seq + 1,
        first_seen=ref(0),
        last_seen=ref(seq),
        novelty=0.7,
        reason="unlike training" if changes.get("label") == "unknown" else None,
    )
    return msgspec.structs.replace(first, **changes)


def event(kind: EventKind, subject: Track | None = None, **changes: object) -> Event:
    seen = subject.last_seen if subject else ref(0)
    made = Event(
        id=str(ULID()),
        kind=kind,
        severity=Severity.ALARM if kind in (CONFIRMED, OPENED, ESCALATED) else Severity.INFO,
        camera=seen.camera,
        time_utc_ns=seen.received_utc_ns,
        pts_s=seen.pts_s,
        frame=seen.seq,
        session=seen.session,
        track=subject,
    )
    return msgspec.structs.replace(made, **changes)


def raised(subject: Track, **changes: object) -> list[Event]:
    """A track that is confirmed, and the alert that it opens."""
    confirmed = event(CONFIRMED, subject, **changes)
    confirmed = msgspec.structs.replace(confirmed, alert=confirmed.id)
    return [confirmed, msgspec.structs.replace(confirmed, id=str(ULID()), kind=OPENED)]


def gone(subject: Track, alert: str, **changes: object) -> list[Event]:
    """A track that is lost, and the alert that ends with it."""
    lost = msgspec.structs.replace(subject, state=TrackState.LOST)
    return [event(kind, lost, alert=alert, **changes) for kind in (LOST, ENDED)]


def kinds(events: Iterable[Event]) -> list[EventKind]:
    return [item.kind for item in events]


def ids(events: Iterable[Event]) -> list[str]:
    return [item.id for item in events]


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)
