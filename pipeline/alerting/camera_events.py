"""Events of a camera's state: up, down, blind.  Pure."""

from pipeline.ids import derived_ulid
from pipeline.types import CameraState, Event, EventKind, Severity


def camera_event(state: CameraState) -> Event:
    """Return the event for a state that a capture worker reported."""
    if not state.up:
        kind = EventKind.CAMERA_DOWN
    else:
        kind = EventKind.CAMERA_UP if state.cause is None else EventKind.CAMERA_BLIND
    return Event(
        id=derived_ulid(state.time_utc_ns, state.camera, state.session, kind, str(state.time_utc_ns)),
        kind=kind,
        severity=Severity.INFO if kind is EventKind.CAMERA_UP else Severity.WARNING,
        camera=state.camera,
        time_utc_ns=state.time_utc_ns,
        pts_s=state.pts_s,
        frame=state.frame,
        session=state.session,
        cause=state.cause,
    )
