"""The snapshots that events name: written by another thread, so possibly a moment after the event was stored."""

import time
from pathlib import Path

from pipeline.types import Event

WAIT_S = 2.0  # from the event's frame on
POLL_S = 0.05


def snapshot_of(event: Event, folder: Path) -> bytes | None:
    """Return the JPEG that an event names, waiting shortly for that of a new one; None where there is none."""
    if event.snapshot is None:
        return None
    path = folder / Path(event.snapshot).name
    while True:
        try:
            return path.read_bytes()
        except OSError:  # not written yet, lost, or deleted by retention
            if not 0 <= time.time_ns() - event.time_utc_ns < WAIT_S * 1e9:
                return None
            time.sleep(POLL_S)
