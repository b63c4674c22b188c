"""The segmentation worker: Frames from all cameras -> Detections to the track worker, credit back to the cameras.

It takes no more frames than its next batch holds, in turns, each the newest of its camera: so no queue of old frames
can build up, however many cameras there are.  A frame that could not be segmented is reported as failed, never as
empty.
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
from pipeline.config.models import Address, Config
from pipeline.errors import WireError
from pipeline.runtime.control import Changes, Control
from pipeline.runtime.heartbeat import HeartbeatSender
from pipeline.runtime.process import finish_startup
from pipeline.segmentation import preview
from pipeline.segmentation.batching import BatchWindow
from pipeline.segmentation.scheduler import Camera, CreditScheduler
from pipeline.segmentation.segmenter import Batch, Segmenter, views_of
from pipeline.telemetry.metrics import SegmentationMetrics
from pipeline.telemetry.resources import GpuResources
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.link import HostAuthenticator
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import Socket, bound, connected
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
    frame_of,
    result_message,
)
from pipeline.types import Detections, Frame, FrameRef

PREVIEW_PERIOD_S = 0.12  # frames without detections need no picture more often
BATCH_DEADLINE_S = 8.0  # a batch that takes longer has failed: before the cameras give up its frames
HANG_S = 30.0  # a device that is still busy with it then is lost
IDLE_S = 0.2
RESULT_WAIT_MS = 1000  # the track worker may be slow for so long before results are lost, and counted as failed


def run(control: Control, stop: threading.Event, served: Address | None = None) -> None:
    config = control.config
    loaded = load(checkpoint_path(config.model.checkpoint))
    with Engine(loaded, device=config.model.device, kind=config.model.engine) as engine:
        views = views_of(config.cameras)
        segmenter = Segmenter(engine, config.model.threshold, views)
        metrics = SegmentationMetrics(loaded.metadata.sha256[:12], engine.name, __version__)
        if engine.device.type == "cuda":
            metrics.registry.register(GpuResources(str(engine.device)))
        endpoints = Endpoints()
        gate = HostAuthenticator(config, config.link, RejectLog("link", metrics.refused)) if config.link else None
        doors = [bound(zmq.ROUTER, endpoints.segmentation, high_water=64)]
        if gate is not None and config.link is not None:
            doors.append(gate.listening_socket(zmq.ROUTER, config.link.port, 64, metrics.listening))
        finish_startup(stop)
        with HeartbeatSender(endpoints.heartbeat, metrics, served, run=control.run):
            objective_s = config.objective.capture_to_track_ms / 1e3
            SegmentationWorker(
                segmenter, frozenset(views), doors, metrics, stop, objective_s, gate=gate, changes=control.changes
            ).run()
        if gate is not None:
            gate.close()


class SegmentationWorker:
    def __init__(
        self,
        segmenter: Segmenter,
        site: frozenset[str],
        doors: Sequence[Socket],
        metrics: SegmentationMetrics,
        stop: threading.Event,
        objective_s: float,
        deadline_s: float = BATCH_DEADLINE_S,
        gate: HostAuthenticator | None = None,
        changes: Changes = tuple,
    ) -> None:
        """`doors`: of this host's cameras, and behind the `gate` that of those on other hosts."""
        self._changes = changes
        self._segmenter = segmenter
        self._deadline_s = deadline_s
        self._site = site  # ids of its cameras
        self._metrics = metrics
        self._refusals = RejectLog("segmentation", metrics.refused)
        self._stop = stop
        self._id = secrets.token_hex(8)
        self._flying: list[tuple[Batch, list[Stamps]]] = []
        self._overdue: list[Batch] = []  # those that have failed, but the device is not free of
        self._depth = segmenter.engine.max_in_flight  # batches under way
        most = 16 if segmenter.engine.device.type == "cuda" else 1  # a CPU gains nothing from batches
        self._turns = CreditScheduler(most, self._depth)
        self._window = BatchWindow(objective_s, most)
        self._done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._doors = doors
        self._gate = gate
        self._results = connected(zmq.PUSH, Endpoints.results, high_water=64, linger_ms=500)
        self._log = structlog.get_logger()

    def run(self) -> None:
        poller = zmq.Poller()
        for socket in (*self._doors, self._done):
            poller.register(socket, zmq.POLLIN)
        wait_s = IDLE_S
        while not self._stop.is_set():
            if self._gate is not None:
                self._gate.bind()
            ready = dict(poller.poll(math.ceil(wait_s * 1e3)))
            if self._done in ready:
                os.eventfd_read(self._done)
            for door in self._doors:
                while door in ready and door.poll(0):
                    self._receive(door, door.recv_multipart(copy=False))
            self._finish()
            self._expire()
            for config in self._changes():
                self._watch(config)
            for camera in self._turns.grants(time.monotonic()):
                self._credit(camera)
            wait_s = self._submit()
        for door in self._doors:
            door.close()
        self._results.close()

    def _watch(self, config: Config) -> None:
        """The cameras of the site from now on."""
        views = views_of(config.cameras)
        self._site = frozenset(views)
        self._segmenter.watch(views)
        self._turns.keep(views)
        if self._gate is not None:
            self._gate.watch(config)

    def _receive(self, door: Socket, parts: list[zmq.Frame]) -> None:
        identity = parts[0].bytes
        try:
            message, buffers = decode([part.buffer for part in parts[1:]])
            if door is not self._doors[0] and self._gate is not None:
                self._gate.check(camera_of(message), parts[1])
            self._handle(door, identity, message, buffers)
        except WireError as error:
            self._refusals.refuse(error, identity.hex())

    def _handle(self, door: Socket, identity: bytes, message: Message, buffers: list[memoryview]) -> None:
        match message:
            case TimeRequest():
                answer = TimeReply(message.session, message.asked_ns, time.monotonic_ns())
                door.send_multipart([identity, *encode(answer)])
            case CreditRequest():
                if message.camera not in self._site:
                    raise WireError(f"camera {message.camera[:64]!r}, which is none of this site")
                self._turns.ask(message.camera, door, identity, message.session)
            case FrameHeader():
                frame = frame_of(message, buffers)
                known = self._turns.cameras.get(frame.ref.camera)
                if known is None or (known.door, known.identity) != (door, identity):
                    return  # of a session that has ended
                if known.session != frame.ref.session or not known.granted:
                    raise WireError(f"a frame of {frame.ref.camera!r} that it had no credit for")
                message.stamps.arrived_ns = time.monotonic_ns()
                self._turns.arrived(known, frame, message.stamps)
            case EndOfStream():
                ending = self._turns.cameras.get(message.camera)
                if ending is not None and ending.is_of(door, identity, message.session):
                    ending.ended = True
            case _:
                raise WireError(f"a {type(message).__name__} sent to the segmentation worker")

    def _submit(self) -> float:
        """Give the device its next batch: at most one frame of each camera.

        Returns in how many seconds to try again, if nothing happens before.
        """
        waiting = self._turns.waiting()
        if not waiting or len(self._flying) >= self._depth:
            return IDLE_S
        now_ns = time.monotonic_ns()
        running_s = (now_ns - self._flying[-1][0].started_ns) / 1e9 if self._flying else 0.0
        received_ns = min(camera.waiting[0].ref.received_mono_ns for camera in waiting if camera.waiting)
        age_s = (now_ns - received_ns) / 1e9
        wait_s = self._window.wait_s(len(self._flying), len(waiting), self._turns.expected(), running_s, age_s)
        if wait_s > 0:
            return min(wait_s, IDLE_S)
        self._start([self._turns.take(camera) for camera in waiting])
        return IDLE_S

    def _start(self, chosen: list[tuple[Frame, Stamps]]) -> None:
        self._metrics.batch_size.observe(len(chosen))
        stamps = {frame.ref: stamp for frame, stamp in chosen}
        started_ns = time.monotonic_ns()  # preparing the pictures is part of inference
        try:
            batches = self._segmenter.submit([frame for frame, _ in chosen])
        except EngineLost:
            raise
        except Exception as error:  # noqa: BLE001 - as in `_finish`
            self._fail([frame for frame, _ in chosen], str(error))
            return
        for batch in batches:
            for frame in batch.frames:
                stamps[frame.ref].started_ns = started_ns
            self._flying.append((batch, [stamps[frame.ref] for frame in batch.frames]))
            batch.future.add_done_callback(self._signal)

    def _signal(self, _: "Future[Any]") -> None:
        os.eventfd_write(self._done, 1)

    def _finish(self) -> None:
        """Take what the device has done: results on, credit back."""
        while self._flying and self._flying[0][0].future.done():
            batch, stamps = self._flying.pop(0)
            if batch in self._overdue:
                self._overdue.remove(batch)
                continue  # its frames have failed already
            self._window.done((batch.inferred_ns - batch.started_ns) / 1e9)
            try:
                detections = batch.detections()
            except EngineLost:
                raise  # this process can do nothing more; the supervisor starts another
            except Exception as error:  # noqa: BLE001 - whatever the device raises costs this batch, not the worker
                self._fail(batch.frames, str(error))
                continue
            for frame, found, stamp in zip(batch.frames, detections, stamps, strict=True):
                stamp.inferred_ns = batch.inferred_ns
                stamp.masked_ns = time.monotonic_ns()
                self._metrics.worked()
                self._end(frame.ref, segmented=self._deliver(frame, found, stamp))
        for camera in self._turns.cameras.values():
            if camera.ended and camera.is_idle:
                camera.ended = False
                self._send(encode(EndOfStream(camera.name, camera.session)))

    def _expire(self) -> None:
        """A batch that overruns has failed, and so have frames that waited for the device as long."""
        now_ns = time.monotonic_ns()
        late_ns = now_ns - round(self._deadline_s * 1e9)
        for batch, _ in self._flying:
            if batch not in self._overdue and batch.started_ns < late_ns:
                self._overdue.append(batch)
                self._fail(batch.frames, f"not done after {self._deadline_s} s")
            if now_ns - batch.started_ns > HANG_S * 1e9:
                raise EngineLost(f"the device has been busy with one batch for {HANG_S:.0f} s")
        for camera in self._turns.waiting():
            if camera.waiting and camera.waiting[1].arrived_ns < late_ns:
                self._fail([camera.waiting[0]], f"the device was not free for {self._deadline_s} s")

    def _deliver(self, frame: Frame, detections: Detections, stamps: Stamps) -> bool:
        if frame.ref.camera not in self._site:  # not any more
            return False
        camera = self._turns.cameras.get(frame.ref.camera)
        now_s = time.monotonic()
        jpeg = b""
        if camera is not None and (len(detections) or now_s - camera.preview_s >= PREVIEW_PERIOD_S):
            camera.preview_s = now_s
            jpeg = preview.jpeg_preview(frame)
        return self._send(result_message(detections, stamps, jpeg))

    def _send(self, message: list[Any]) -> bool:
        if not self._results.poll(RESULT_WAIT_MS, zmq.POLLOUT):
            self._log.error("the track worker takes no results")
            return False
        self._results.send_multipart(message)
        return True

    def _fail(self, frames: list[Frame], reason: str) -> None:
        self._log.error("batch failed", reason=reason, frames=len(frames))
        for frame in frames:
            self._end(frame.ref, segmented=False)

    def _end(self, ref: FrameRef, *, segmented: bool) -> None:
        """A frame has met its fate: its camera is told."""
        camera = self._turns.cameras.get(ref.camera)
        if camera is None or camera.session != ref.session:
            return  # numbers of another session would be taken for its own
        self._turns.ended(camera, ref)
        self._credit(camera, [ref.seq] if segmented else [], [] if segmented else [ref.seq])

    def _credit(self, camera: Camera, segmented: Sequence[int] = (), failed: Sequence[int] = ()) -> None:
        credit = Credit(self._id, camera.session, list(segmented), list(failed), camera.granted, camera.newest)
        camera.door.send_multipart([camera.identity, *encode(credit)])
