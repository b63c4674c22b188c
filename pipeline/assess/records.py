"""The events and snapshots of an assessment, and operators' verdicts on its alarms.

OUT has the layout of a run folder (`store.sqlite`, `snapshots/`), so that a console whose `run_dir` is OUT shows the
alarms and takes verdicts.  Verdicts in the site's own store count for alarms of the same camera at the same time.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from pipeline.alerting.snapshots import snapshots_of, write_snapshot
from pipeline.assess.observations import Alarm, Assessment, CameraObservation, Verdict
from pipeline.errors import StoreError
from pipeline.redaction import redact
from pipeline.segmentation.preview import jpeg_preview
from pipeline.store.alert import Alert
from pipeline.store.reader import StoreReader
from pipeline.store.store import Store
from pipeline.types import Detections, Event, Frame

STORE = "store.sqlite"
SNAPSHOTS = "snapshots"
MAX_READ = 100_000  # alerts of the site's store, the newest
TOLERANCE_NS = 2_000_000_000  # between an alarm and the alert that a run raised on the same camera


class Records:
    """Write events and snapshots to the output folder.  Raise StoreError where the store cannot be written."""

    def __init__(self, out: Path) -> None:
        self._store = Store(out / STORE)
        self._snapshots = out / SNAPSHOTS

    def append(self, events: Iterable[Event]) -> None:
        """Store events."""
        self._store.append(events)

    def write_snapshots(self, frame: Frame, detections: Detections, events: Sequence[Event]) -> None:
        """Write the snapshots that the events name; raise OSError where one cannot be written."""
        if not any(event.snapshot for event in events):
            return
        for name, jpeg, _, tracks in snapshots_of(events, jpeg_preview(frame), detections):
            write_snapshot(self._snapshots / name, jpeg, detections, tracks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._store.close()


def with_verdicts(assessment: Assessment, out: Path, site_store: Path) -> Assessment:
    """Return the assessment with what operators say of its alarms by now; a store that cannot be read says nothing."""
    own = {alert.id: alert for alert in _alerts(out / STORE)}
    site = [alert for alert in _alerts(site_store) if verdict_of(alert) is not None]
    cameras = [
        _reviewed(camera, own, [alert for alert in site if alert.camera == camera.id]) for camera in assessment.cameras
    ]
    return msgspec.structs.replace(assessment, cameras=cameras)


def verdict_of(alert: Alert) -> Verdict | None:
    """Return false for a dismissed alert, true for one that was acknowledged and not dismissed."""
    if alert.dismissed_utc_ns is not None:
        return "false"
    return None if alert.acknowledged_utc_ns is None else "true"


def _reviewed(camera: CameraObservation, own: dict[str, Alert], site: Sequence[Alert]) -> CameraObservation:
    alarms = [msgspec.structs.replace(alarm, verdict=_verdict(alarm, own, site)) for alarm in camera.alarms]
    return msgspec.structs.replace(camera, alarms=alarms)


def _verdict(alarm: Alarm, own: dict[str, Alert], site: Sequence[Alert]) -> Verdict | None:
    verdict = verdict_of(own[alarm.id]) if alarm.id in own else None
    if verdict is not None:
        return verdict
    for alert in site:
        end_ns = alert.ended_utc_ns or alert.last_seen_utc_ns
        if alert.opened_utc_ns - TOLERANCE_NS <= alarm.time_utc_ns <= end_ns + TOLERANCE_NS:
            return verdict_of(alert)
    return None


def _alerts(path: Path) -> list[Alert]:
    if not path.exists():
        return []
    try:
        with StoreReader(path) as reader:
            return reader.alerts(MAX_READ)
    except StoreError as error:
        print(redact(f"verdicts not used: {error}"), file=sys.stderr)
        return []
