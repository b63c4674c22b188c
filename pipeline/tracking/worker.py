"""The track worker: detections -> tracks -> events -> store, sinks and console.

The store, snapshots and retention have their own threads: the frame loop never waits for a disk.  Its input queue is
bounded; the segmentation worker counts the results that it cannot send.
"""

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
import zmq

from model.description import read_thresholds
from model.metadata import BandThresholds
from pipeline.alerting.camera_events import camera_event
from pipeline.alerting.snapshots import SnapshotWriter, snapshots_of, with_snapshot_names
from pipeline.checkpoints import checkpoint_path, checkpoint_sha256
from pipeline.config.calibration import calibrations_of
from pipeline.config.console import Address
from pipeline.config.models import Config
from pipeline.errors import WireError
from pipeline.runtime.arming import is_armed
from pipeline.runtime.control import Control
from pipeline.runtime.heartbeat import HeartbeatSender
from pipeline.runtime.process import finish_startup
from pipeline.sinks.configured import configured_sinks
from pipeline.sinks.evidence import EvidenceSink
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.sink import Sink
from pipeline.sinks.store_writer import StoreWriter
from pipeline.store.cleanup import Retention
from pipeline.store.integrity import IntegrityCheck
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.timeouts import CAMERA_SILENCE_TIMEOUT_S, TRACKING_DRAIN_TIMEOUTS_S
from pipeline.tracking.camera_settings import mounts_of, orientations_of, places_of, policies_of, rules_of
from pipeline.tracking.clip_requests import ClipRequests
from pipeline.tracking.edge_hosts import EdgeHosts
from pipeline.tracking.stage import Outcome, TrackStage
from pipeline.transport import live
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.payloads import detections_of
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import EndOfStream, LedgerCopy, Result, Stamps, camera_of, decode
from pipeline.types import AxisSample, CameraState, Detections, Event, Track, TrackState

if TYPE_CHECKING:
    from pipeline.tracking.shared import SharedCameras


def run(control: Control, stop: threading.Event, served: Address | None = None) -> None:
    """Run the track worker until `stop` is set."""
    config = control.config
    checkpoint = checkpoint_path(config.model.checkpoint)
    thresholds, sha256 = read_thresholds(checkpoint), checkpoint_sha256(checkpoint)
    metrics = TrackingMetrics((camera.id for camera in config.cameras), config.objective.capture_to_track_ms / 1e3)
    shared = _shared_cameras(config, metrics)
    # The outbox waits until the writer has opened the store, which may be missing, damaged or of an older version.
    evidence = EvidenceSink(config, sha256, metrics.evidence)
    sinks = [*configured_sinks(config), evidence]
    if shared is not None:
        sinks = shared.sinks(sinks)
    outbox = Outbox(config.store_path, sinks, store_is_open=False, metrics=metrics.sinks)
    writer = StoreWriter(config.store_path, config.spill_path, outbox, metrics, ends_orphans=shared is None)
    snapshots = SnapshotWriter(config.snapshots_path, metrics.store, writer.forget_snapshot)
    try:
        finish_startup(stop)
        with (
            HeartbeatSender(Endpoints().heartbeat, metrics, served, run=control.run),
            Retention(config, metrics.store, [sink.name for sink in sinks], evidence),
            IntegrityCheck(config.store_path, outbox.report_damage),
        ):
            try:
                _TrackWorker(
                    control, thresholds, sha256, writer, snapshots, evidence, sinks, metrics, shared, stop
                ).run()
            finally:
                snapshots.stop(TRACKING_DRAIN_TIMEOUTS_S["snapshots"])
                writer.stop(TRACKING_DRAIN_TIMEOUTS_S["store"])
    finally:
        outbox.stop(TRACKING_DRAIN_TIMEOUTS_S["outbox"])
        evidence.finish(TRACKING_DRAIN_TIMEOUTS_S["evidence"])
        if shared is not None:
            shared.close(TRACKING_DRAIN_TIMEOUTS_S["hosts"])


def _shared_cameras(config: Config, metrics: TrackingMetrics) -> "SharedCameras | None":
    if config.inference_host is None:
        return None
    from pipeline.tracking.shared import SharedCameras  # imports nats, which a site with one inference host lacks

    return SharedCameras(config, metrics)


class _TrackWorker:
    def __init__(
        self,
        control: Control,
        thresholds: BandThresholds,
        sha256: str,
        writer: StoreWriter,
        snapshots: SnapshotWriter,
        evidence: EvidenceSink,
        sinks: Sequence[Sink],
        metrics: TrackingMetrics,
        shared: "SharedCameras | None",
        stop: threading.Event,
    ) -> None:
        config = control.config
        self._changes = control.changes
        self._sha256 = sha256
        policies = policies_of(config, calibrations_of(config, sha256))
        self._stage = TrackStage(
            thresholds, policies, orientations_of(config), rules_of(config), places_of(config), mounts_of(config)
        )
        self._writer = writer
        self._snapshots = snapshots
        self._evidence = evidence
        self._sinks = sinks
        self._metrics = metrics
        self._rejects = RejectLog("results", metrics.refused)
        self._cameras = {camera.id: camera for camera in config.cameras}
        self._stop = stop
        self._last_result_s: dict[str, float] = {}  # by camera
        self._results = bound(zmq.PULL, Endpoints().results, high_water=64)
        self._edge_hosts = EdgeHosts(config, config.link, metrics) if config.link else None
        self._live = bound(zmq.PUB, Endpoints().live, high_water=64)
        self._clips = ClipRequests(config, metrics, self._edge_hosts.clips if self._edge_hosts is not None else None)
        self._shared = shared
        if shared is not None:
            shared.start(writer, control, self._stage)
        self._run_dir = config.run_dir
        self._log = structlog.get_logger()

    def run(self) -> None:
        poller = zmq.Poller()
        for socket in self._sources():
            poller.register(socket, zmq.POLLIN)
        while not self._stop.is_set():
            if self._edge_hosts is not None:
                self._edge_hosts.bind()
            ready = poller.poll(200)
            self._follow_arming()
            for camera in self._shared.follow() if self._shared is not None else ():
                self._forget(camera)
            for socket, _ in ready:
                self._receive(socket)
            for config in self._changes():
                self._watch(config)
            expired_s = time.monotonic() - CAMERA_SILENCE_TIMEOUT_S
            for camera in [name for name, last_s in self._last_result_s.items() if last_s < expired_s]:
                self._close(camera)
        self._receive_waiting()
        if self._shared is not None:
            self._shared.hand_over()
        for camera in list(self._last_result_s):
            self._close(camera)
        for socket in (self._results, self._live):
            socket.close()
        self._clips.close()
        if self._edge_hosts is not None:
            self._edge_hosts.close()

    def _follow_arming(self) -> None:
        armed = is_armed(self._run_dir)
        if armed != self._stage.armed:
            self._log.warning("site armed" if armed else "site disarmed")
        self._stage.armed = armed

    def _watch(self, config: Config) -> None:
        """Apply the cameras of a new configuration; results of removed ones are tracked first, then closed."""
        self._receive_waiting()
        cameras = {camera.id: camera for camera in config.cameras}
        removed, self._cameras = frozenset(self._cameras.keys() - cameras.keys()), cameras
        for name in removed:
            self._close(name)
        self._metrics.watch(frozenset(cameras))
        self._clips.watch(config)
        for sink in self._sinks:
            sink.watch(config)
        self._stage.policies = policies_of(config, calibrations_of(config, self._sha256))
        self._stage.orientations = orientations_of(config)
        self._stage.rules = rules_of(config)
        self._stage.places = places_of(config)
        self._stage.mounts = mounts_of(config)
        if self._edge_hosts is not None:
            self._edge_hosts.watch(config, removed)
        if self._shared is not None:
            self._shared.watch(config)

    def _receive_waiting(self) -> None:
        """Track the results that are already in the queue."""
        for socket in self._sources():
            while socket.poll(0):
                self._receive(socket)

    def _sources(self) -> list[Socket]:
        return [self._results, *([self._edge_hosts.socket] if self._edge_hosts is not None else [])]

    def _receive(self, socket: Socket) -> None:
        parts = socket.recv_multipart(copy=False)
        edge_hosts = self._edge_hosts if socket is not self._results else None
        try:
            message, buffers = decode([part.buffer for part in parts])
            camera = camera_of(message)
            self._check_camera(camera)
            if edge_hosts is not None:
                edge_hosts.check(message, parts[0])
            if self._shared is not None and not self._shared.owns(camera):
                return
            match message:
                case Result():
                    jpeg = bytes(buffers[0]) if buffers else b""
                    live.check_preview(jpeg)
                    self._track(detections_of(message), message.stamps, jpeg)
                case CameraState():
                    self._camera_state(message)
                case AxisSample():
                    self._stage.look(message)
                case LedgerCopy() if edge_hosts is not None:
                    edge_hosts.copy_ledger(message)
                case EndOfStream():
                    if self._stage.session(message.camera) == message.session:
                        self._close(message.camera)
                case _:
                    raise WireError(f"{type(message).__name__}; must be Result, CameraState, AxisSample or EndOfStream")
        except WireError as error:
            self._rejects.reject(error)

    def _check_camera(self, camera: str) -> None:
        """Raise WireError for an unknown camera: its state and metrics would never be released."""
        if camera and camera not in self._cameras:
            raise WireError(f"unknown camera {camera[:64]!r}")

    def _track(self, detections: Detections, stamps: Stamps, jpeg: bytes) -> None:
        ref = detections.ref
        if self._stage.session(ref.camera) not in (None, ref.session):
            self._close(ref.camera)
        if self._stage.session(ref.camera) is None:
            self._check_zones(detections)
        if self._stage.classes(ref.camera) not in (None, detections.classes):
            raise WireError(f"classes of a result of {ref.camera!r} differ from those of its session")
        self._last_result_s[ref.camera] = time.monotonic()
        if self._shared is not None:
            self._append(self._shared.begin(detections))
        started_ns = time.monotonic_ns()
        outcome = self._stage.update(detections)
        self._metrics.tracked(ref, stamps, started_ns, started_ns + outcome.track_ns)
        self._metrics.stage("alert", outcome.alert_ns)
        if not jpeg:
            self._store(outcome, outcome.events)
            return
        self._live.send_multipart(live.encode(_live_frame(detections, outcome.tracks), jpeg), flags=zmq.DONTWAIT)
        events = with_snapshot_names(outcome.events, ref.camera, outcome.joined)
        self._store(outcome, events)
        for snapshot in snapshots_of(events, jpeg, detections):
            self._snapshots.write(snapshot)

    def _check_zones(self, detections: Detections) -> None:
        """Warn of zones that reach beyond the frames of a session."""
        camera, (width, height) = detections.ref.camera, detections.size_px
        for zone in self._cameras[camera].zones_beyond((width, height)):
            self._log.warning("zone reaches beyond the frame", camera=camera, zone=zone, frame=f"{width}x{height}")

    def _store(self, outcome: Outcome, events: Sequence[Event]) -> None:
        self._evidence.track(outcome.ref, outcome.tracks, events)
        self._writer.update_tracks(track for track in outcome.tracks if track.state is not TrackState.TENTATIVE)
        self._metrics.track_count(outcome.ref.camera, outcome.tracks)
        self._append(events)
        if self._shared is not None and self._stage.session(outcome.ref.camera) is not None:
            self._shared.tracked(outcome.ref.camera, has_events=bool(events))

    def _append(self, events: Sequence[Event]) -> None:
        if events and self._shared is not None:
            events = self._shared.stamped(events)
        if events:
            self._metrics.count(events)
            self._clips.send(events)
            self._writer.append(events)

    def _close(self, camera: str) -> None:
        """End the camera's session."""
        outcome = self._stage.close(camera)
        if outcome is not None:
            self._store(outcome, outcome.events)
            if self._shared is not None:
                self._shared.closed(camera)
        self._forget(camera)

    def _forget(self, camera: str) -> None:
        """Forget the camera's session, which has ended or goes on on another host."""
        self._last_result_s.pop(camera, None)
        self._evidence.close_camera(camera)
        self._metrics.track_count(camera, [])

    def _camera_state(self, state: CameraState) -> None:
        if not state.up:
            self._close(state.camera)
        self._append([camera_event(state)])


def _live_frame(detections: Detections, tracks: Sequence[Track]) -> live.LiveFrame:
    """Return what the live view draws over the frame's preview."""
    ref, (width, height) = detections.ref, detections.size_px
    current = [track for track in tracks if track.is_shown][: live.MAX_TRACKS]
    return live.LiveFrame(ref.camera, ref.session, ref.seq, ref.pts_s, ref.received_utc_ns, width, height, current)
