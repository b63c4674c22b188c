"""The track/alert worker: Detections -> Tracks -> Events -> the store, the sinks and the console.

Store, snapshots and retention have threads of their own: this one never waits for a disk.  What it is slow in is
visible: the queue before it is bounded, and the segmentation worker counts what it cannot hand over.
"""

import threading
import time
from collections.abc import Sequence

import msgspec
import structlog
import zmq

from model.description import read_thresholds
from model.metadata import BandThresholds
from pipeline.alerting.camera_events import camera_event
from pipeline.alerting.snapshots import Snapshot, SnapshotWriter
from pipeline.checkpoints import checkpoint_path
from pipeline.config.models import Address, Config
from pipeline.errors import WireError
from pipeline.runtime.control import Control
from pipeline.runtime.heartbeat import HeartbeatSender
from pipeline.runtime.process import finish_startup
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.sink import configured
from pipeline.sinks.store_writer import StoreWriter
from pipeline.store.cleanup import Retention
from pipeline.store.ledger import LedgerCopies
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.timeouts import CAMERA_SILENCE_TIMEOUT_S, TRACKING_DRAIN_TIMEOUTS_S
from pipeline.tracking.stage import Outcome, TrackStage
from pipeline.transport import live
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.link import HostAuthenticator
from pipeline.transport.payloads import detections_of
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import EndOfStream, LedgerCopy, Result, Stamps, camera_of, decode
from pipeline.types import CameraState, Detections, Event, EventKind, Track, TrackState


def run(control: Control, stop: threading.Event, served: Address | None = None) -> None:
    config = control.config
    decision = read_thresholds(checkpoint_path(config.model.checkpoint))
    metrics = TrackingMetrics((camera.id for camera in config.cameras), config.objective.capture_to_track_ms / 1e3)
    # The outbox waits until the writer has opened the store, which may be damaged, of an older version or not there.
    sinks = configured(config)
    outbox = Outbox(config.store_path, sinks, store_is_there=False)
    writer = StoreWriter(config.store_path, config.spill_path, outbox, metrics)
    snapshots = SnapshotWriter(config.snapshots_path, metrics.store, writer.forget_snapshot)
    try:
        finish_startup(stop)
        with (
            HeartbeatSender(Endpoints().heartbeat, metrics, served, run=control.run),
            Retention(config, metrics.store, [sink.name for sink in sinks]),
        ):
            try:
                _TrackWorker(control, decision, writer, snapshots, metrics, stop).run()
            finally:
                snapshots.stop(TRACKING_DRAIN_TIMEOUTS_S["snapshots"])
                writer.stop(TRACKING_DRAIN_TIMEOUTS_S["store"])
    finally:
        outbox.stop(TRACKING_DRAIN_TIMEOUTS_S["outbox"])


class _TrackWorker:
    def __init__(
        self,
        control: Control,
        decision: BandThresholds,
        writer: StoreWriter,
        snapshots: SnapshotWriter,
        metrics: TrackingMetrics,
        stop: threading.Event,
    ) -> None:
        config = control.config
        self._changes = control.changes
        self._stage = TrackStage(decision)
        self._writer = writer
        self._snapshots = snapshots
        self._metrics = metrics
        self._refusals = RejectLog("results", metrics.refused)
        self._site = frozenset(camera.id for camera in config.cameras)
        self._classes: dict[str, tuple[str, ...]] = {}  # camera -> of its session
        self._stop = stop
        self._heard_s: dict[str, float] = {}  # camera -> when its last result came
        self._results = bound(zmq.PULL, Endpoints().results, high_water=64)
        self._gate = HostAuthenticator(config, config.link, RejectLog("link", metrics.refused)) if config.link else None
        self._from_hosts: Socket | None = None  # camera states of other hosts
        if self._gate is not None and config.link is not None:
            port = config.link.results_port
            self._from_hosts = self._gate.listening_socket(zmq.PULL, port, 64, metrics.listening)
        self._copies = LedgerCopies()
        self._ledger_path = config.ledger_path
        self._log = structlog.get_logger()
        self._live = bound(zmq.PUB, Endpoints().live, high_water=64)

    def run(self) -> None:
        poller = zmq.Poller()
        for socket in self._sources():
            poller.register(socket, zmq.POLLIN)
        while not self._stop.is_set():
            if self._gate is not None:
                self._gate.bind()
            for socket, _ in poller.poll(200):
                self._receive(socket)
            for config in self._changes():
                self._watch(config)
            now_s = time.monotonic()
            for camera in [
                name for name, heard_s in self._heard_s.items() if now_s - heard_s > CAMERA_SILENCE_TIMEOUT_S
            ]:
                self._close(camera)
        self._receive_waiting()
        for camera in list(self._heard_s):
            self._close(camera)
        for socket in (*self._sources(), self._live):
            socket.close()
        self._copies.close()
        if self._gate is not None:
            self._gate.close()

    def _watch(self, config: Config) -> None:
        """The cameras of the site from now on; what came of others before is tracked to its end."""
        self._receive_waiting()
        self._site = frozenset(camera.id for camera in config.cameras)
        for camera in config.cameras:
            if camera.host is None:
                self._copies.release(self._ledger_path(camera.id))
        for name in self._classes.keys() - self._site:
            self._close(name)
            del self._classes[name]
            self._copies.release(self._ledger_path(name))
        self._metrics.watch(self._site)
        if self._gate is not None:
            self._gate.watch(config)

    def _receive_waiting(self) -> None:
        """What was already segmented is not thrown away."""
        for socket in self._sources():
            while socket.poll(0):
                self._receive(socket)

    def _sources(self) -> list[Socket]:
        return [self._results, *([self._from_hosts] if self._from_hosts is not None else [])]

    def _receive(self, socket: Socket) -> None:
        parts = socket.recv_multipart(copy=False)
        try:
            message, buffers = decode([part.buffer for part in parts])
            self._check_camera(camera_of(message))
            if socket is self._from_hosts and self._gate is not None:
                self._gate.check(camera_of(message), parts[0])
                if not isinstance(message, CameraState | LedgerCopy):
                    raise WireError(f"a {type(message).__name__} from another host")
            match message:
                case Result():
                    jpeg = bytes(buffers[0]) if buffers else b""
                    live.check_preview(jpeg)
                    self._track(detections_of(message), message.stamps, jpeg)
                case CameraState():
                    self._camera_state(message)
                case LedgerCopy() if socket is self._from_hosts:
                    self._copy_ledger(message)
                case EndOfStream():
                    if self._stage.session(message.camera) == message.session:
                        self._close(message.camera)
                case _:
                    raise WireError(f"a {type(message).__name__} sent to the track worker")
        except WireError as error:
            self._refusals.reject(error)

    def _check_camera(self, camera: str) -> None:
        """Whose memory and metrics would be kept for ever.  Raises WireError."""
        if camera and camera not in self._site:
            raise WireError(f"camera {camera[:64]!r}, which is none of this site")

    def _track(self, detections: Detections, stamps: Stamps, jpeg: bytes) -> None:
        ref = detections.ref
        if self._stage.session(ref.camera) not in (None, ref.session):
            self._close(ref.camera)
        if self._stage.session(ref.camera) is not None and self._classes[ref.camera] != detections.classes:
            raise WireError(f"a result of {ref.camera!r} whose classes are not those of its session")
        self._classes[ref.camera] = detections.classes
        self._heard_s[ref.camera] = time.monotonic()
        started_ns = time.monotonic_ns()
        tracks = self._stage.track(detections)
        tracked_ns = time.monotonic_ns()
        events = self._stage.alert(ref, tracks)
        alerted_ns = time.monotonic_ns()
        self._metrics.tracked(ref, stamps, started_ns, tracked_ns)
        self._metrics.stage("alert", alerted_ns - tracked_ns)
        self._publish(detections, tracks, jpeg)
        if jpeg:
            events = [_with_snapshot(event) for event in events]
        self._emit(Outcome(ref, tracks, events))
        for event in events:
            if event.snapshot is not None:
                self._snapshots.write(Snapshot(event.snapshot, jpeg, detections, tracks))

    def _emit(self, outcome: Outcome) -> None:
        """Events and running tracks to the store's writer."""
        camera = outcome.ref.camera
        confirmed = [track for track in outcome.tracks if track.state is not TrackState.TENTATIVE]
        self._writer.update_tracks(confirmed)
        self._metrics.active.labels(camera).set(
            sum(track.state in (TrackState.CONFIRMED, TrackState.COASTING) for track in confirmed)
        )
        if outcome.events:
            self._store(outcome.events)

    def _store(self, events: Sequence[Event]) -> None:
        for event in events:
            self._count(event)
        self._writer.append(events)

    def _count(self, event: Event) -> None:
        metrics, camera = self._metrics, event.camera
        if event.kind is EventKind.TRACK_CONFIRMED and event.track is not None:
            metrics.confirmed.labels(camera).inc()
            metrics.alerts.labels(camera, event.severity).inc()
        elif event.kind is EventKind.TRACK_LABELLED and event.track is not None:
            metrics.distractors.labels(camera, event.track.label).inc()

    def _close(self, camera: str) -> None:
        self._heard_s.pop(camera, None)
        outcome = self._stage.close(camera)
        if outcome is not None:
            self._emit(outcome)
        self._metrics.active.labels(camera).set(0)

    def _camera_state(self, state: CameraState) -> None:
        if not state.up:
            self._close(state.camera)
        self._store([camera_event(state)])

    def _copy_ledger(self, copy: LedgerCopy) -> None:
        try:
            self._copies.write(self._ledger_path(copy.camera), copy.words)
        except OSError as error:  # the next one comes in a second
            self._log.warning("copy of a ledger not written", camera=copy.camera, reason=str(error))

    def _publish(self, detections: Detections, tracks: Sequence[Track], jpeg: bytes) -> None:
        if not jpeg:
            return
        ref = detections.ref
        width, height = detections.size_px
        shown = [track for track in tracks if track.state is not TrackState.LOST][: live.MAX_TRACKS]
        frame = live.LiveFrame(ref.camera, ref.session, ref.seq, ref.pts_s, ref.received_utc_ns, width, height, shown)
        self._live.send_multipart(live.encode(frame, jpeg), flags=zmq.DONTWAIT)


def _with_snapshot(event: Event) -> Event:
    """The event first, with the name that its snapshot will have."""
    if event.kind is not EventKind.TRACK_CONFIRMED:
        return event
    return msgspec.structs.replace(event, snapshot=f"{event.id}.jpg")
