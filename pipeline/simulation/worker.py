"""The segmentation worker and the track worker, simulated, on a machine without a GPU.

The order of work is that of `pipeline.segmentation.worker`; credit, share of pixels and tiles are decided by the same
code as there.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from model.engine.native import MAX_IN_FLIGHT
from pipeline.segmentation.merging import is_reduced_due
from pipeline.segmentation.scan import Scan
from pipeline.segmentation.scheduler import CameraSession, CreditScheduler
from pipeline.segmentation.share import ShareControl
from pipeline.simulation.cameras import LINK_S, SESSION, LiveCamera
from pipeline.simulation.cores import Machine, Program, Thread, Wait, Work
from pipeline.simulation.service import Draw, ServiceTimes
from pipeline.transport.sockets import Socket
from pipeline.transport.wire import Credit, Stamps
from pipeline.types import Frame

IDLE_S = 0.2
ROUTER = cast(Socket, None)  # nothing is sent through it
NOWHERE = np.zeros((0, 2), np.float32)


@dataclass(eq=False)
class _InFlight:
    camera: CameraSession
    frame: Frame
    is_done: bool = False


class SimulatedWorker:
    """Segments the frames of its cameras, and tracks.

    Attributes:
        latencies_s: from capture to track, of the frames that were tracked.
    """

    def __init__(
        self, times: ServiceTimes, objective_s: float, share: float | None, machine: Machine, draw: Draw
    ) -> None:
        self.latencies_s: list[float] = []
        self._times, self._machine, self._draw = times, machine, draw
        self._max_in_flight = min(MAX_IN_FLIGHT, times.threads)
        self._scheduler = CreditScheduler(1, self._max_in_flight)
        self._control = ShareControl(objective_s, share)
        self._cameras: dict[str, LiveCamera] = {}
        self._scans: dict[str, Scan] = {}
        self._reduced_s: dict[str, float] = {}
        self._inbox: list[Callable[[], None]] = []
        self._in_flight: list[_InFlight] = []
        self._results: deque[Frame] = deque()
        self._thread = Thread(machine, self._segment())
        self._tracker = Thread(machine, self._track())

    @property
    def share(self) -> float:
        """The share of pixels that the network processes."""
        return self._control.share

    @property
    def revisit_s(self) -> float:
        """How long the place that has waited longest has waited for the network."""
        return max((one.revisit_s for one in self._scans.values()), default=0.0)

    def request(self, camera: LiveCamera) -> None:
        """Receive a request for credit."""
        self._cameras[camera.name] = camera
        self._receive(lambda: self._scheduler.request(camera.name, ROUTER, b"", SESSION))

    def receive(self, camera: LiveCamera, frame: Frame, stamps: Stamps) -> None:
        """Receive a frame."""
        self._receive(lambda: self._scheduler.arrived(self._scheduler.cameras[camera.name], frame, stamps))

    def _receive(self, handle: Callable[[], None]) -> None:
        self._inbox.append(handle)
        self._thread.wake()

    def _segment(self) -> Program:
        while True:
            before_s = self._machine.now_s
            yield Wait(IDLE_S)
            if not self._in_flight:
                self._control.idle(self._machine.now_s - before_s)
            messages, self._inbox = self._inbox, []
            for handle in messages:
                handle()
            done = [one for one in self._in_flight if one.is_done]
            self._in_flight = [one for one in self._in_flight if not one.is_done]
            for camera in self._scheduler.grants(self._machine.now_s):
                self._send_credit(camera)
            waiting = self._scheduler.waiting()
            if waiting and len(self._in_flight) < self._max_in_flight:
                yield from self._start(waiting[0])
            for one in done:
                yield Work(self._draw.of(self._times.judge_s))
                self._machine.at(self._machine.now_s + LINK_S, partial(self._segmented, one.frame))
                self._scheduler.finished(one.camera, one.frame.ref)
                self._send_credit(one.camera, [one.frame.ref.seq])

    def _start(self, camera: CameraSession) -> Program:
        frame, stamps = self._scheduler.take(camera)
        now_s = self._machine.now_s
        self._control.update(stamps.replaced, now_s - frame.ref.received_mono_ns / 1e9, now_s)
        one = _InFlight(camera, frame)
        self._in_flight.append(one)
        seconds = self._network_s(frame)
        yield Work(self._draw.of(self._times.prepare_s))
        width = max(1.0, self._times.threads * self._times.parallel_share)
        self._machine.compute(Work(seconds, width), partial(self._inferred, one))

    def _inferred(self, one: _InFlight) -> None:
        one.is_done = True
        self._thread.wake()

    def _network_s(self, frame: Frame) -> float:
        """Return what the network computes for a frame, in seconds of one core."""
        times, share, name, pts_s = self._times, self._control.share, frame.ref.camera, frame.ref.pts_s
        scan = self._scans.setdefault(name, Scan())
        if share >= 1:
            scan.covered()
            seconds = times.whole_s
        else:
            seconds = times.tile_s * len(scan.tiles(times.size_px, pts_s, share, NOWHERE, NOWHERE))
        if is_reduced_due(pts_s - self._reduced_s.get(name, -math.inf), share):
            self._reduced_s[name] = pts_s
            seconds += times.reduced_s
        return seconds

    def _send_credit(self, camera: CameraSession, segmented: list[int] | None = None) -> None:
        credit = Credit("worker", SESSION, segmented or [], [], camera.granted, camera.newest)
        client = self._cameras[camera.name]
        self._machine.at(self._machine.now_s + LINK_S, lambda: client.credited(credit))

    def _segmented(self, frame: Frame) -> None:
        self._results.append(frame)
        self._tracker.wake()

    def _track(self) -> Program:
        while True:
            yield Wait(IDLE_S)
            while self._results:
                frame = self._results.popleft()
                yield Work(self._draw.of(self._times.track_s))
                self.latencies_s.append(self._machine.now_s - frame.ref.received_mono_ns / 1e9)
