"""The segmentation worker: Frames from all cameras -> Detections to the track worker, credit back to the cameras.

It takes no more frames than its next batch holds, round-robin across the cameras: so no queue of old frames can build
up, however many cameras there are.  A frame that could not be segmented is reported as failed, never as empty.
"""

import math
import os
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import structlog
import zmq

from model.checkpoint import load
from model.engine.engine import Engine
from model.errors import EngineLost
from pipeline import __version__
from pipeline.checkpoints import checkpoint_path
from pipeline.config.calibration import calibrations_of
from pipeline.config.console import Address
from pipeline.config.models import Config
from pipeline.errors import WireError
from pipeline.runtime.control import Changes, Control
from pipeline.runtime.heartbeat import HeartbeatSender
from pipeline.runtime.process import finish_startup
from pipeline.segmentation.batch import Batch
from pipeline.segmentation.batching import BatchingPolicy
from pipeline.segmentation.in_flight import BatchesInFlight
from pipeline.segmentation.network_share import NetworkShare
from pipeline.segmentation.results import ResultSender
from pipeline.segmentation.scheduler import CameraSession, CreditScheduler
from pipeline.segmentation.segmenter import Segmenter, views_of
from pipeline.telemetry.metrics import SegmentationMetrics
from pipeline.telemetry.resources import GpuResources
from pipeline.timeouts import BATCH_DEADLINE_S
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.link import HostAuthenticator, LinkListener
from pipeline.transport.payloads import frame_of
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import (
    Credit,
    CreditRequest,
    EndOfStream,
    FrameHeader,
    Message,
    Stamps,
    TimeReply,
    TimeRequest,
    camera_of,
    decode,
    encode,
)
from pipeline.types import Frame, FrameRef

IDLE_S = 0.2
MAX_GPU_BATCH = 16  # a CPU gains nothing from batches


def run(control: Control, stop: threading.Event, served: Address | None = None) -> None:
    """Run the segmentation worker of this process until `stop` is set."""
    config = control.config
    loaded = load(checkpoint_path(config.model.checkpoint))
    with Engine(loaded, device=config.model.device, kind=config.model.engine) as engine:
        views = views_of(config.cameras, calibrations_of(config, loaded.metadata.sha256))
        segmenter = Segmenter(engine, config.model.threshold, views)
        metrics = SegmentationMetrics(loaded.metadata.sha256[:12], engine.name, __version__)
        if engine.device.type == "cuda":
            metrics.registry.register(GpuResources(str(engine.device)))
        endpoints, link = Endpoints(), config.link
        authenticator = HostAuthenticator(config, link, RejectLog("link", metrics.refused)) if link else None
        listener = (
            authenticator.listener(zmq.ROUTER, link.port, 64, metrics.listening) if authenticator and link else None
        )
        local = bound(zmq.ROUTER, endpoints.segmentation, high_water=64)
        finish_startup(stop)
        with HeartbeatSender(endpoints.heartbeat, metrics, served, run=control.run):
            SegmentationWorker(
                segmenter,
                config,
                [local, listener.socket] if listener else [local],
                metrics,
                stop,
                authenticator=authenticator,
                listener=listener,
                changes=control.changes,
            ).run()
        if authenticator is not None:
            authenticator.close()


class SegmentationWorker:
    """Receive frames, run inference, send results on and credit back."""

    def __init__(
        self,
        segmenter: Segmenter,
        config: Config,
        routers: Sequence[Socket],
        metrics: SegmentationMetrics,
        stop: threading.Event,
        deadline_s: float = BATCH_DEADLINE_S,
        authenticator: HostAuthenticator | None = None,
        listener: LinkListener | None = None,
        changes: Changes = tuple,
    ) -> None:
        """Initialise the worker.

        Args:
            segmenter: runs inference.
            config: of the site.
            routers: the socket of this host's cameras; with an `authenticator`, that of other hosts' cameras.
            metrics: of this worker.
            stop: ends `run`.
            deadline_s: a batch that takes longer has failed.
            authenticator: admits other hosts.
            listener: of their cameras' socket, which may not listen yet.
            changes: configurations that were handed over since the last call.
        """
        self._changes = changes
        self._segmenter = segmenter
        self._deadline_ns = round(deadline_s * 1e9)
        self._cameras = frozenset(camera.id for camera in config.cameras)
        self._metrics = metrics
        self._rejects = RejectLog("segmentation", metrics.refused)
        self._stop = stop
        self._id = secrets.token_hex(8)
        self._in_flight = BatchesInFlight(deadline_s)
        self._max_in_flight = segmenter.engine.max_in_flight
        max_batch_size = MAX_GPU_BATCH if segmenter.engine.device.type == "cuda" else 1
        self._scheduler = CreditScheduler(max_batch_size, self._max_in_flight)
        self._batching = BatchingPolicy(config.objective.capture_to_track_ms / 1e3, max_batch_size)
        self._share = NetworkShare(segmenter, metrics, config)
        self._revisit_s = config.objective.scan_revisit_s
        self._inferred = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._routers, self._authenticator, self._listener = routers, authenticator, listener
        self._results = ResultSender()
        self._log = structlog.get_logger()

    def run(self) -> None:
        """Work until `stop` is set.  Raise EngineLost where the device is of no more use to this process."""
        poller = zmq.Poller()
        for socket in (*self._routers, self._inferred):
            poller.register(socket, zmq.POLLIN)
        wait_s = IDLE_S
        while not self._stop.is_set():
            if self._listener is not None:
                self._listener.bind()
            before_s = time.monotonic()
            ready = dict(poller.poll(math.ceil(wait_s * 1e3)))
            if not self._in_flight:
                self._share.idled(time.monotonic() - before_s)
            if self._inferred in ready:
                os.eventfd_read(self._inferred)
            for router in self._routers:
                while router in ready and router.poll(0):
                    self._receive(router, router.recv_multipart(copy=False))
            done = list(self._in_flight.finished())
            self._expire()
            for config in self._changes():
                self._watch(config)
            wait_s = self._submit()
            for camera in self._scheduler.grants(time.monotonic()):
                self._send_credit(camera)
            self._finish(done)  # last: meanwhile the device computes, and the next frame is on its way
        for router in self._routers:
            router.close()
        self._results.close()

    def _watch(self, config: Config) -> None:
        """Set the cameras of the site from now on."""
        views = views_of(config.cameras, calibrations_of(config, self._segmenter.engine.metadata.sha256))
        self._cameras = frozenset(views)
        self._share.watch(config)
        self._segmenter.watch(views)
        self._scheduler.keep(views)
        if self._authenticator is not None:
            self._authenticator.watch(config)

    def _receive(self, router: Socket, parts: list[zmq.Frame]) -> None:
        identity = parts[0].bytes
        try:
            message, buffers = decode([part.buffer for part in parts[1:]])
            if router is not self._routers[0] and self._authenticator is not None:
                self._authenticator.check(camera_of(message), parts[1])
            self._handle(router, identity, message, buffers)
        except WireError as error:
            self._rejects.reject(error, identity.hex())

    def _handle(self, router: Socket, identity: bytes, message: Message, buffers: list[memoryview]) -> None:
        match message:
            case TimeRequest():
                reply = TimeReply(message.session, message.asked_ns, time.monotonic_ns())
                router.send_multipart([identity, *encode(reply)])
            case CreditRequest():
                if message.camera not in self._cameras:
                    raise WireError(f"unknown camera {message.camera[:64]!r}")
                self._scheduler.request(message.camera, router, identity, message.session)
            case FrameHeader():
                frame = frame_of(message, buffers)
                camera = self._scheduler.cameras.get(frame.ref.camera)
                if camera is None or (camera.router, camera.identity) != (router, identity):
                    return  # of a session that has ended
                if camera.session != frame.ref.session or not camera.granted:
                    raise WireError(f"frame of camera {frame.ref.camera!r} without credit")
                message.stamps.arrived_ns = time.monotonic_ns()
                self._scheduler.arrived(camera, frame, message.stamps)
            case EndOfStream():
                camera = self._scheduler.cameras.get(message.camera)
                if camera is not None and camera.is_from(router, identity, message.session):
                    camera.ended = True
            case _:
                raise WireError(f"{type(message).__name__}: expected a message for the segmentation worker")

    def _submit(self) -> float:
        """Give the device its next batch: at most one frame of each camera.

        Return in how many seconds to try again if nothing happens before.
        """
        waiting = self._scheduler.waiting()
        if not waiting or len(self._in_flight) >= self._max_in_flight:
            return IDLE_S
        now_ns = time.monotonic_ns()
        received_ns = min(camera.waiting[0].ref.received_mono_ns for camera in waiting if camera.waiting)
        wait_s = self._batching.wait_s(
            len(self._in_flight),
            len(waiting),
            self._scheduler.expected(),
            self._in_flight.running_s(now_ns),
            (now_ns - received_ns) / 1e9,
        )
        if wait_s > 0:
            return min(wait_s, IDLE_S)
        self._start([self._scheduler.take(camera) for camera in waiting])
        return IDLE_S

    def _start(self, chosen: list[tuple[Frame, Stamps]]) -> None:
        self._share.started(chosen)
        self._metrics.batch_size.observe(len(chosen))
        started_ns = time.monotonic_ns()  # preprocessing is part of inference
        try:
            batch = self._segmenter.submit([frame for frame, _ in chosen])
        except EngineLost:
            raise
        except Exception as error:  # noqa: BLE001 - as in `_finish`
            self._fail([frame for frame, _ in chosen], str(error))
            return
        for _, stamps in chosen:
            stamps.started_ns = started_ns
        self._in_flight.add(batch, [stamps for _, stamps in chosen])
        batch.done.add_done_callback(self._wake)

    def _wake(self, _: "Future[Any]") -> None:
        os.eventfd_write(self._inferred, 1)

    def _finish(self, done: list[tuple[Batch, list[Stamps]]]) -> None:
        """Send on what the device has done: results to the track worker, credit to the cameras."""
        for batch, stamps in done:
            self._batching.executed((batch.inferred_ns - batch.started_ns) / 1e9)
            try:
                results = self._segmenter.finish(batch)
            except EngineLost:
                raise  # this process can do nothing more; the supervisor starts another
            except Exception as error:  # noqa: BLE001 - whatever the device raises costs this batch, not the worker
                self._fail(batch.frames, str(error))
                continue
            for frame, detections, stamp in zip(batch.frames, results, stamps, strict=True):
                stamp.inferred_ns = batch.inferred_ns
                stamp.masked_ns = time.monotonic_ns()
                self._metrics.worked()
                is_known = frame.ref.camera in self._cameras  # not one that was removed while its frame was here
                self._report(frame.ref, segmented=is_known and self._results.send(frame, detections, stamp))
        for camera in self._scheduler.cameras.values():
            if camera.ended and camera.is_idle:
                camera.ended = False
                self._results.end_of_stream(camera.name, camera.session)

    def _expire(self) -> None:
        """Fail batches that miss their deadline, and frames that have waited as long for the device."""
        now_ns = time.monotonic_ns()
        for batch in self._in_flight.overdue(now_ns):
            self._fail(batch.frames, f"not done after {self._deadline_ns / 1e9:g} s")
        for camera in self._scheduler.waiting():
            if camera.waiting and camera.waiting[1].arrived_ns < now_ns - self._deadline_ns:
                self._fail([camera.waiting[0]], f"the device was not free for {self._deadline_ns / 1e9:g} s")

    def _fail(self, frames: list[Frame], reason: str) -> None:
        self._log.error("batch failed", reason=reason, frames=len(frames))
        for frame in frames:
            self._report(frame.ref, segmented=False)

    def _report(self, ref: FrameRef, *, segmented: bool) -> None:
        """Report a frame's outcome to its camera."""
        camera = self._scheduler.cameras.get(ref.camera)
        if camera is None or camera.session != ref.session:
            return  # sequence numbers of another session would be taken for its own
        self._scheduler.finished(camera, ref)
        self._send_credit(camera, [ref.seq] if segmented else [], [] if segmented else [ref.seq])

    def _send_credit(self, camera: CameraSession, segmented: Sequence[int] = (), failed: Sequence[int] = ()) -> None:
        overdue = self._segmenter.overdue(camera.name, self._revisit_s)
        credit = Credit(self._id, camera.session, list(segmented), list(failed), camera.granted, camera.newest, overdue)
        camera.router.send_multipart([camera.identity, *encode(credit)])
