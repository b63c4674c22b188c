"""Snapshots: the frame of an alert with its target marked, and a crop of the target, written in a separate thread.

In: a frame's preview as JPEG, its detections, and the alert's track.  Out: two JPEG files, which the events name; all
files of an alert begin with its id.  A snapshot that cannot be written is counted, and the first of several is logged
as an error.
"""

import queue
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.errors import WireError
from pipeline.imaging import overlay
from pipeline.store.folders import write_whole
from pipeline.store.metrics import StoreMetrics
from pipeline.types import Detections, Event, EventKind, Track

MAX_QUEUED = 32  # frames
SHOWN = (EventKind.TRACK_CONFIRMED, EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED)
CROP_PX = (160, 120)  # least size of a crop, in pixels of the preview ...
CROP_SIDES = 4  # ... and least width, in sides of the target


class Snapshot(NamedTuple):
    """A snapshot to write: its file name, the frame's preview, and the tracks that are marked on it."""

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
        for name in (snapshot.name, crop_name(snapshot.name)):
            self._on_lost(name)


def with_snapshot_names(events: Sequence[Event], camera: str, joined: Container[str] = ()) -> list[Event]:
    """Return the events; those that show a target of an alert, with the names of its snapshot and crop.

    Events of one alert and frame share them.

    Args:
        events: of one frame.
        camera: of the frame; an event may tell what another camera saw.
        joined: alerts that another camera opened: its frames have other numbers.
    """
    return [
        _named(event, event.alert in joined)
        if event.kind in SHOWN and event.alert is not None and event.camera == camera
        else event
        for event in events
    ]


def _named(event: Event, is_joined: bool) -> Event:
    is_first = event.kind is EventKind.ALERT_OPENED or event.id == event.alert
    number = event.time_utc_ns // 10**6 if is_joined else event.frame
    name = f"{event.alert}.jpg" if is_first else f"{event.alert}-{number}.jpg"
    return msgspec.structs.replace(event, snapshot=name, crop=crop_name(name))


def crop_name(snapshot: str) -> str:
    """Return the file name of a snapshot's crop."""
    return f"{snapshot.removesuffix('.jpg')}.crop.jpg"


def snapshots_of(events: Sequence[Event], jpeg: bytes, detections: Detections) -> list[Snapshot]:
    """Return the snapshots that the events of one frame name."""
    tracks: dict[str, dict[int, Track]] = {}
    for event in events:
        if event.snapshot is not None and event.track is not None:
            tracks.setdefault(event.snapshot, {})[event.track.id] = event.track
    return [Snapshot(name, jpeg, detections, list(own.values())) for name, own in tracks.items()]


def write_snapshot(path: Path, jpeg: bytes, detections: Detections, tracks: Sequence[Track]) -> None:
    """Mark these tracks alone on the preview, at the preview's size; write it, and a crop around them without marks.

    Raises:
        WireError: the preview is not a JPEG.
        OSError: a file cannot be written.
    """
    try:
        preview = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # larger than OpenCV's limit
        preview = None
    if preview is None:
        raise WireError("preview of a result cannot be decoded; must be a JPEG")
    pixels = cv2.cvtColor(preview, cv2.COLOR_BGR2RGB).astype(np.uint8)
    scale = pixels.shape[1] / detections.size_px[0]
    own = np.flatnonzero([owner is not None for owner in overlay.owners(detections, tracks)])
    drawn = overlay.draw(pixels, detections.rows(own), tracks, preview_scale=scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    if tracks:
        _write(path.with_name(crop_name(path.name)), _crop(pixels, tracks, scale))
    _write(path, drawn)  # last: the crop is there when the snapshot is


def _crop(pixels: NDArray[np.uint8], tracks: Sequence[Track], scale: float) -> NDArray[np.uint8]:
    """Return the surroundings of the tracks, as they are in the preview."""
    height, width = pixels.shape[:2]
    boxes = np.array([track.xyxy for track in tracks]) * scale
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    wide = max(CROP_PX[0], CROP_SIDES * max(right - left, bottom - top))
    size = min(width, round(wide)), min(height, round(wide * CROP_PX[1] / CROP_PX[0]))
    x, y = (
        int(np.clip(round((low + high - side) / 2), 0, whole - side))
        for low, high, side, whole in zip((left, top), (right, bottom), size, (width, height), strict=True)
    )
    return pixels[y : y + size[1], x : x + size[0]]


def _write(path: Path, pixels: NDArray[np.uint8]) -> None:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    write_whole(path, encoded.tobytes())
