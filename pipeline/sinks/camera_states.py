"""How a camera is, in words, from its newest event.  Pure."""

from pipeline.types import Event, EventKind

CAMERA_KINDS = (EventKind.CAMERA_UP, EventKind.CAMERA_DOWN, EventKind.CAMERA_BLIND)


def camera_state(newest: Event | None) -> str:
    """Return `up`, `down`, or `blind` with its cause, from the newest event of one of CAMERA_KINDS."""
    if newest is None:
        return "not connected yet"
    cause = f" ({newest.cause})" if newest.cause is not None else ""
    return f"{newest.kind.partition('.')[2]}{cause}"
