"""The track/alert worker: Detections -> Tracks -> Events -> the store, the sinks and the console.

It is the one writer of the store.  What it is slow in is visible: the queue before it is bounded, and the segmentation
worker counts what it cannot hand over.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
import structlog
import zmq

from model.metadata import Decisions, read_decisions
from pipeline import overlay
from pipeline.checkpoints import checkpoint_path
from pipeline.config import Address, Config
from pipeline.errors import WireError
from pipeline.ledger import Copies
from pipeline.metrics import TrackingMetrics
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.sink import configured
from pipeline.sinks.store import Store
from pipeline.tracking.stage import Outcome, TrackStage
from pipeline.tracking.tracker import derived_ulid
from pipeline.transport import live
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.heartbeat import Heart
from pipeline.transport.link import Gate
from pipeline.transport.refusals import Refusals
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import (
    CameraState,
    End,
    LedgerCopy,
    Result,
    Stamps,
    camera_of,
    decode,
    detections_of,
)
from pipeline.types import Detections, Event, EventKind, Severity, Track, TrackState
from pipeline.workers import settle

SILENCE_S = 3.0  # a camera without results for so long has lost its tracks
STORE_PERIOD_S = 0.5  # how often running tracks are written; events are written at once


def run(config: Config, stop: threading.Event, served: Address | None = None) -> None:
    decision = read_decisions(checkpoint_path(config.model.checkpoint))
    metrics = TrackingMetrics((camera.id for camera in config.cameras), config.objective.capture_to_track_ms / 1e3)
    config.store_path.parent.mkdir(parents=True, exist_ok=True)
    with Store(config.store_path) as store:
        outbox = Outbox(config.store_path, configured(config))
        try:
            settle(stop)
            with Heart(Endpoints().heartbeat, metrics, served):
                _TrackWorker(config, decision, store, outbox, metrics, stop).run()
        finally:
            outbox.stop()


class _TrackWorker:
    def __init__(
        self,
        config: Config,
        decision: Decisions,
        store: Store,
        outbox: Outbox,
        metrics: TrackingMetrics,
        stop: threading.Event,
    ) -> None:
        self._stage = TrackStage(decision)
        self._snapshots = config.run_dir / "snapshots"
        self._snapshots.mkdir(parents=True, exist_ok=True)
        self._store = store
        self._outbox = outbox
        self._metrics = metrics
        self._refusals = Refusals("results", metrics.refused)
        self._site = frozenset(camera.id for camera in config.cameras)
        self._classes: dict[str, tuple[str, ...]] = {}  # camera -> of its session
        self._stop = stop
        self._heard_s: dict[str, float] = {}  # camera -> when its last result came
        self._stored_s = 0.0
        self._running: dict[str, Track] = {}  # tracks to be written at the next occasion, by ULID
        self._results = bound(zmq.PULL, Endpoints().results, high_water=64)
        self._gate = Gate(config, config.link, Refusals("link", metrics.refused)) if config.link else None
        self._from_hosts: Socket | None = None  # camera states of other hosts
        if self._gate is not None and config.link is not None:
            self._from_hosts = self._gate.bound(zmq.PULL, config.link.results_port, high_water=64)
        self._copies = Copies()
        self._ledger_path = config.ledger_path
        self._live = bound(zmq.PUB, Endpoints().live, high_water=64)
        self._log = structlog.get_logger()

    def run(self) -> None:
        poller = zmq.Poller()
        for socket in self._sources():
            poller.register(socket, zmq.POLLIN)
        while not self._stop.is_set():
            for socket, _ in poller.poll(200):
                self._receive(socket)
            now_s = time.monotonic()
            for camera in [name for name, heard_s in self._heard_s.items() if now_s - heard_s > SILENCE_S]:
                self._close(camera)
            if now_s - self._stored_s >= STORE_PERIOD_S:
                self._write_running()
        for socket in self._sources():
            while socket.poll(0):  # what was already segmented is not thrown away
                self._receive(socket)
        for camera in list(self._heard_s):
            self._close(camera)
        self._write_running()
        for socket in (*self._sources(), self._live):
            socket.close()
        self._copies.close()
        if self._gate is not None:
            self._gate.close()

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
                    live.check_picture(jpeg)
                    self._track(detections_of(message), message.stamps, jpeg)
                case CameraState():
                    self._camera_state(message)
                case LedgerCopy() if socket is self._from_hosts:
                    self._copies.write(self._ledger_path(message.camera), message.words)
                case End():
                    if self._stage.session(message.camera) == message.session:
                        self._close(message.camera)
                case _:
                    raise WireError(f"a {type(message).__name__} sent to the track worker")
        except WireError as error:
            self._refusals.refuse(error)

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
        events = [self._with_snapshot(event, detections, tracks, jpeg) for event in events]
        self._emit(Outcome(ref, tracks, events))
        if events:
            self._metrics.stage("sink", time.monotonic_ns() - alerted_ns)

    def _emit(self, outcome: Outcome) -> None:
        """Events to the store at once; running tracks with the next batch."""
        camera = outcome.ref.camera
        confirmed = [track for track in outcome.tracks if track.state is not TrackState.TENTATIVE]
        self._running.update((track.ulid, track) for track in confirmed)
        self._metrics.active.labels(camera).set(
            sum(track.state in (TrackState.CONFIRMED, TrackState.COASTING) for track in confirmed)
        )
        if outcome.events:
            self._store_events(camera, outcome.events)

    def _store_events(self, camera: str, events: Sequence[Event]) -> None:
        self._store.append(events)
        self._outbox.wake()
        for event in events:
            self._count(event)
            about = {"track": event.track.id, "label": event.track.label} if event.track else {}
            if event.cause is not None:
                about = {"cause": event.cause}
            self._log.info(event.kind, camera=camera, severity=event.severity, frame=event.frame, **about)

    def _count(self, event: Event) -> None:
        metrics, camera = self._metrics, event.camera
        if event.kind is EventKind.TRACK_CONFIRMED and event.track is not None:
            metrics.confirmed.labels(camera).inc()
            metrics.alerts.labels(camera, event.severity).inc()
            seconds = (time.monotonic_ns() - event.track.last_seen.received_mono_ns) / 1e9
            metrics.capture_to_alert.labels(camera).observe(seconds)
        elif event.kind is EventKind.TRACK_LABELLED and event.track is not None:
            metrics.distractors.labels(camera, event.track.label).inc()

    def _write_running(self) -> None:
        self._stored_s = time.monotonic()
        if self._running:
            self._store.update_tracks(self._running.values())
            self._running.clear()
        for sink, backlog in self._outbox.backlog().items():
            self._metrics.backlog.labels(sink.partition(":")[0]).set(backlog)

    def _close(self, camera: str) -> None:
        self._heard_s.pop(camera, None)
        outcome = self._stage.close(camera)
        if outcome is not None:
            self._emit(outcome)
        self._metrics.active.labels(camera).set(0)

    def _camera_state(self, state: CameraState) -> None:
        if not state.up:
            self._close(state.camera)
        self._store_events(state.camera, [camera_event(state)])

    def _publish(self, detections: Detections, tracks: Sequence[Track], jpeg: bytes) -> None:
        if not jpeg:
            return
        ref = detections.ref
        width, height = detections.size_px
        shown = [track for track in tracks if track.state is not TrackState.LOST][: live.MAX_TRACKS]
        frame = live.LiveFrame(ref.camera, ref.session, ref.seq, ref.pts_s, ref.received_utc_ns, width, height, shown)
        self._live.send_multipart(live.encode(frame, jpeg), flags=zmq.DONTWAIT)

    def _with_snapshot(self, event: Event, detections: Detections, tracks: Sequence[Track], jpeg: bytes) -> Event:
        """The picture that raised the alert, with its overlay, beside the event that names it."""
        if event.kind is not EventKind.TRACK_CONFIRMED or not jpeg:
            return event
        path = self._snapshots / f"{event.id}.jpg"
        try:
            write_snapshot(path, jpeg, detections, tracks)
        except WireError as error:  # the alert is worth more than its picture
            self._refusals.refuse(error, "picture")
            return event
        return msgspec.structs.replace(event, snapshot=path.name)


def camera_event(state: CameraState) -> Event:
    seen = EventKind.CAMERA_UP if state.cause is None else EventKind.CAMERA_BLIND
    kind = seen if state.up else EventKind.CAMERA_DOWN
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


def write_snapshot(path: Path, jpeg: bytes, detections: Detections, tracks: Sequence[Track]) -> None:
    try:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # it says that it is larger than any picture may be
        pixels = None
    if pixels is None:
        raise WireError("a result whose picture is no JPEG")
    width, height = detections.size_px
    if (pixels.shape[1], pixels.shape[0]) != (width, height):  # a preview was made smaller; boxes are frame pixels
        pixels = cv2.resize(pixels, (width, height))
    drawn = overlay.draw(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8), detections, tracks)
    partial = path.with_suffix(".partial.jpg")
    cv2.imwrite(str(partial), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    partial.replace(path)
