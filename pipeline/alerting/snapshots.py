"""Snapshots: the frame that raised an alert, with its overlay, written in a thread of its own.

In: events that name their snapshot, and the frame as JPEG with its detections and tracks.  Out: the files.  One that
cannot be written stops nothing: it is counted, and logged once until one can be written again.
"""

import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import cv2
import numpy as np
import structlog

from pipeline.errors import WireError
from pipeline.imaging import overlay
from pipeline.store.metrics import StoreMetrics
from pipeline.types import Detections, Track

MAX_WAITING = 32  # frames


class Snapshot(NamedTuple):
    name: str
    jpeg: bytes
    detections: Detections
    tracks: Sequence[Track]


class SnapshotWriter:
    """`on_lost` is called, in any thread, with the name of a snapshot that was not written."""

    def __init__(self, folder: Path, metrics: StoreMetrics, on_lost: Callable[[str], None]) -> None:
        self._folder = folder
        self._metrics = metrics
        self._on_lost = on_lost
        self._failing = False
        self._waiting: queue.Queue[Snapshot | None] = queue.Queue(MAX_WAITING)
        self._log = structlog.get_logger()
        self._thread = Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    def write(self, snapshot: Snapshot) -> None:
        """Returns at once."""
        try:
            self._waiting.put_nowait(snapshot)
        except queue.Full:
            self._lose(snapshot, "overload", f"{MAX_WAITING} snapshots wait already")

    def stop(self, deadline_s: float) -> None:
        """Write what waits, but no longer than the deadline."""
        try:
            self._waiting.put(None, timeout=deadline_s)
        except queue.Full:
            return
        self._thread.join(deadline_s)

    def _run(self) -> None:
        while (snapshot := self._waiting.get()) is not None:
            try:
                write_snapshot(self._folder / snapshot.name, snapshot.jpeg, snapshot.detections, snapshot.tracks)
            except WireError as error:
                self._lose(snapshot, "malformed", str(error))
            except Exception as error:  # noqa: BLE001  (the thread's top level: the next one may go well)
                self._lose(snapshot, "disk", str(error))
            else:
                if self._failing:
                    self._log.warning("snapshots are written again")
                self._failing = False

    def _lose(self, snapshot: Snapshot, cause: str, reason: str) -> None:
        self._metrics.snapshots_lost.labels(cause).inc()
        say = self._log.debug if self._failing else self._log.error
        say("snapshot lost", snapshot=snapshot.name, cause=cause, reason=reason)
        self._failing = True
        self._on_lost(snapshot.name)


def write_snapshot(path: Path, jpeg: bytes, detections: Detections, tracks: Sequence[Track]) -> None:
    """Raises WireError where the JPEG is none, OSError where it cannot be written."""
    try:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # larger than OpenCV's limit
        pixels = None
    if pixels is None:
        raise WireError("a result whose image is no JPEG")
    width, height = detections.size_px
    if (pixels.shape[1], pixels.shape[0]) != (width, height):  # a preview was made smaller; boxes are frame pixels
        pixels = cv2.resize(pixels, (width, height))
    drawn = overlay.draw(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8), detections, tracks)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.jpg")
    try:
        partial.write_bytes(encoded.tobytes())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
