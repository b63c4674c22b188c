"""Snapshots: the frame that raised an alert, with its overlay, written in a separate thread.

In: a frame's preview as JPEG, with its detections and tracks.  Out: JPEG files, which the events name.  A snapshot that
cannot be written is counted, and the first of several is logged as an error.
"""

import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
import structlog

from pipeline.errors import WireError
from pipeline.imaging import overlay
from pipeline.store.metrics import StoreMetrics
from pipeline.types import Detections, Event, EventKind, Track

MAX_QUEUED = 32  # frames


class Snapshot(NamedTuple):
    """A snapshot to write: its file name, the frame's preview, and what is drawn on it."""

    name: str
    jpeg: bytes
    detections: Detections
    tracks: Sequence[Track]


class SnapshotWriter:
    """Write snapshots in a thread.  `on_lost` is called, in any thread, with the name of one that was not written."""

    def __init__(self, folder: Path, metrics: StoreMetrics, on_lost: Callable[[str], None]) -> None:
        self._folder = folder
        self._metrics = metrics
        self._on_lost = on_lost
        self._failing = False
        self._queue: queue.Queue[Snapshot | None] = queue.Queue(MAX_QUEUED)
        self._log = structlog.get_logger()
        self._thread = Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    def write(self, snapshot: Snapshot) -> None:
        """Queue a snapshot without blocking; one that does not fit is lost."""
        try:
            self._queue.put_nowait(snapshot)
        except queue.Full:
            self._lose(snapshot, "overload", f"queue is full ({MAX_QUEUED} snapshots)")

    def stop(self, deadline_s: float) -> None:
        """Write the queued snapshots, until the deadline at the latest."""
        try:
            self._queue.put(None, timeout=deadline_s)
        except queue.Full:
            return
        self._thread.join(deadline_s)

    def _run(self) -> None:
        while (snapshot := self._queue.get()) is not None:
            try:
                write_snapshot(self._folder / snapshot.name, snapshot.jpeg, snapshot.detections, snapshot.tracks)
            except WireError as error:
                self._lose(snapshot, "malformed", str(error))
            except Exception as error:  # noqa: BLE001  (the thread's top level: the next one may succeed)
                self._lose(snapshot, "disk", str(error))
            else:
                if self._failing:
                    self._log.warning("snapshots recovered")
                self._failing = False

    def _lose(self, snapshot: Snapshot, cause: str, reason: str) -> None:
        self._metrics.snapshots_lost.labels(cause).inc()
        log = self._log.debug if self._failing else self._log.error
        log("snapshot lost", snapshot=snapshot.name, cause=cause, reason=reason)
        self._failing = True
        self._on_lost(snapshot.name)


def with_snapshot_names(events: Sequence[Event]) -> list[Event]:
    """Return the events, those that open an alert with the name of their snapshot."""
    return [
        msgspec.structs.replace(event, snapshot=f"{event.id}.jpg") if event.kind is EventKind.TRACK_CONFIRMED else event
        for event in events
    ]


def write_snapshot(path: Path, jpeg: bytes, detections: Detections, tracks: Sequence[Track]) -> None:
    """Draw the overlay on the preview, at the preview's size, and write it.

    Raises:
        WireError: the preview is not a JPEG.
        OSError: the file cannot be written.
    """
    try:
        preview = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # larger than OpenCV's limit
        preview = None
    if preview is None:
        raise WireError("preview of a result cannot be decoded; must be a JPEG")
    pixels = cv2.cvtColor(preview, cv2.COLOR_BGR2RGB).astype(np.uint8)
    drawn = overlay.draw(pixels, detections, tracks, preview_scale=pixels.shape[1] / detections.size_px[0])
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.jpg")
    try:
        partial.write_bytes(encoded.tobytes())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
