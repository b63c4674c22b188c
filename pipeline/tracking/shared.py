"""The cameras that this host owns, of those that several inference hosts share; between the track worker and `Member`.

In: which cameras this host was granted, with the tracks that their last owners left.  Out: the tracks of its cameras
for their next owners, its token on every event, and to the supervisor which cameras to capture.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from msgspec.structs import replace

from pipeline.cluster.member import Granted, Member
from pipeline.cluster.metrics import ClusterMetrics
from pipeline.config.models import Config
from pipeline.errors import StoreError, WireError
from pipeline.runtime.control import Control
from pipeline.sinks.event_log import EventLogSink, raised_by
from pipeline.sinks.sink import Sink
from pipeline.sinks.store_writer import StoreWriter
from pipeline.store.alert_events import alert_event
from pipeline.store.reader import StoreReader
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.tracking.handover import CONTINUE_S, decoded, encoded
from pipeline.tracking.stage import TrackStage
from pipeline.types import Detections, Event, EventKind, FrameRef

MAX_ALERTS = 1000
SAVE_PERIOD_S = 0.5  # of a camera's tracks; with an event they are saved at once


@dataclass
class _Owned:
    token: int | None  # None: no other host may process it
    left: bytes = b""  # tracks of the last owner, until the first frame; empty: none
    left_s: float = 0.0
    saved_s: float = 0.0


class SharedCameras:
    """Called by the track worker's loop only."""

    def __init__(self, config: Config, metrics: TrackingMetrics) -> None:
        assert config.inference_host is not None
        self.host = metrics.host = config.inference_host
        self._member = Member(config, ClusterMetrics(self.host, metrics.registry))
        self._store_path = config.store_path
        # Cameras of this host only are processed whether a server answers or not.
        self._pinned = frozenset(camera for camera, host in config.pins.items() if host == self.host)
        self._owned = {camera: _Owned(None) for camera in self._pinned}
        self._log = structlog.get_logger()

    def sinks(self, sinks: Sequence[Sink]) -> list[Sink]:
        """Return the sinks, each for the events of this host only, and one that shares these."""
        for sink in sinks:
            sink.wants = raised_by(self.host, sink.wants)
        return [*sinks, EventLogSink(self._member)]

    def start(self, writer: StoreWriter, control: Control, stage: TrackStage) -> None:
        """Join the other hosts, and store their events."""
        self._control, self._stage, self._writer = control, stage, writer
        self._control.captures(self._owned)
        self._member.start(self._receive)

    def _receive(self, events: Sequence[Event], kept: Callable[[], None]) -> None:
        """Store events of another host, without the images, which are there."""
        self._writer.append([replace(event, snapshot=None, crop=None) for event in events], kept)

    def follow(self) -> list[str]:
        """Take over what has changed; return the cameras that were withdrawn, after their tracks were handed over."""
        changes = self._member.changes()
        withdrawn = []
        for change in changes:
            if isinstance(change, Granted):
                token = None if change.camera in self._pinned else change.token
                self._owned[change.camera] = _Owned(token, change.tracks, change.saved_s)
                continue
            if change.camera in self._pinned and not change.handed_over:
                continue
            withdrawn.append(change.camera)
            self._owned.pop(change.camera, None)
            if change.handed_over:
                self._save(change.camera)
            self._stage.drop(change.camera)
            if change.handed_over:
                self._member.let_go(change.camera)
        if changes:
            self._control.captures(self._owned)
        return withdrawn

    def owns(self, camera: str) -> bool:
        """Return whether this host processes the camera; frames of others may still have been on their way."""
        return camera in self._owned

    def begin(self, detections: Detections) -> list[Event]:
        """Continue the tracks that the camera's last owner left, before the first frame.

        Return the ends of its alerts where they cannot be continued.
        """
        ref = detections.ref
        owned = self._owned[ref.camera]
        data, owned.left = owned.left, b""
        if not data or self._stage.session(ref.camera) == ref.session:
            return []
        try:
            tracks = decoded(data)
            if tracks.classes != detections.classes:
                raise WireError(f"tracks of classes {tracks.classes}: must be {detections.classes}; use one checkpoint")
        except WireError as error:
            self._log.warning("tracks not continued", camera=ref.camera, reason=str(error))
            return self._ends(ref)
        gap_s = max(0.0, time.monotonic() - owned.left_s)
        self._stage.inherit(tracks, ref, detections.band, gap_s)
        said = "tracks continued" if gap_s <= CONTINUE_S else "tracks ended: nobody processed the camera for too long"
        self._log.info(said, camera=ref.camera, tracks=len(tracks.tracklets), gap_s=round(gap_s, 2))
        return []

    def _ends(self, ref: FrameRef) -> list[Event]:
        """Return the ends of a camera's alerts that are active in this host's store."""
        try:
            with StoreReader(self._store_path) as reader:
                alerts = [alert for alert in reader.alerts(MAX_ALERTS, "active") if alert.camera == ref.camera]
        except StoreError as error:
            self._log.warning("alerts not ended", camera=ref.camera, reason=str(error))
            return []
        kind = EventKind.ALERT_ENDED
        return [alert_event(kind, alert.id, ref.camera, None, ref.received_utc_ns) for alert in alerts]

    def stamped(self, events: Sequence[Event]) -> list[Event]:
        """Return the events with this host and its tokens, with which they are shared."""
        stamped = []
        for event in events:
            owned = self._owned.get(event.camera)
            token = owned.token if owned is not None else None
            stamped.append(replace(event, host=self.host, token=token))
            self._member.raised(event.camera, 1)
        return stamped

    def tracked(self, camera: str, *, has_events: bool) -> None:
        """Save the camera's tracks after a frame, where that is due."""
        owned = self._owned[camera]
        now_s = time.monotonic()
        if has_events or now_s - owned.saved_s >= SAVE_PERIOD_S:
            owned.saved_s = now_s
            self._save(camera)

    def closed(self, camera: str) -> None:
        """Note that the camera's session has ended, and with it all its tracks."""
        if camera in self._owned:
            self._member.save(camera, b"")

    def _save(self, camera: str) -> None:
        tracks = self._stage.state(camera)
        if tracks is not None:
            self._member.save(camera, encoded(tracks))

    def watch(self, config: Config) -> None:
        """Take the cameras of a configuration that was reloaded."""
        self._pinned = frozenset(camera for camera, host in config.pins.items() if host == self.host)
        for camera in self._pinned - self._owned.keys():
            self._owned[camera] = _Owned(None)
        self._control.captures(self._owned)
        self._member.watch(config)

    def hand_over(self) -> None:
        """Save the tracks of all cameras for their next owners; nothing more is tracked here."""
        for camera in self._owned:
            self._save(camera)
            self._stage.drop(camera)

    def close(self, timeout_s: float) -> None:
        """Leave the other hosts, after the last event was shared."""
        self._member.close(timeout_s)
