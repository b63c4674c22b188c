"""The capture end of the credit flow, simulated: frames of a live camera, their queue, and what becomes of them."""

from typing import Protocol

import numpy as np

from pipeline.capture.worker import BRIDGE_SHARE
from pipeline.simulation.cores import Machine, Program, Thread, Wait, Work
from pipeline.simulation.service import Draw, ServiceTimes
from pipeline.timeouts import CREDIT_REQUEST_PERIOD_S
from pipeline.transport.credit import CreditClient
from pipeline.transport.wire import Credit, Stamps
from pipeline.types import Band, Cause, Frame, FrameRef

LINK_S = 0.5e-3  # a message's way to another process
SESSION = "simulated"
PIXELS = np.zeros((1, 1), np.uint8)


class Worker(Protocol):
    """The other end, which messages reach after LINK_S."""

    def request(self, camera: "LiveCamera") -> None:
        """Receive a request for credit."""

    def receive(self, camera: "LiveCamera", frame: Frame, stamps: Stamps) -> None:
        """Receive a frame."""


class LiveCamera:
    """A live camera and its capture worker.

    Attributes:
        name: of the camera.
        captured: frames, likewise `lost` those that were dropped or failed.
    """

    def __init__(
        self,
        name: str,
        fps: float,
        objective_s: float,
        times: ServiceTimes,
        machine: Machine,
        worker: Worker,
        draw: Draw,
    ) -> None:
        self.name, self.captured, self.lost = name, 0, 0
        self._period_s, self._times, self._draw = 1 / fps, times, draw
        self._machine, self._worker = machine, worker
        self._credit = CreditClient(self, BRIDGE_SHARE * objective_s)
        Thread(machine, self._capture())
        self._poll()

    def credited(self, credit: Credit) -> None:
        """Receive credit, and what became of frames."""
        self._credit.receive(credit)
        self._send()

    def sent(self) -> None:
        """See `Outcomes`."""

    def segmented(self) -> None:
        """See `Outcomes`."""

    def failed(self, cause: Cause) -> None:  # noqa: ARG002
        """See `Outcomes`."""
        self.lost += 1

    def dropped(self, cause: Cause, frames: int = 1) -> None:  # noqa: ARG002
        """See `Outcomes`."""
        self.lost += frames

    def _capture(self) -> Program:
        due_s = self._draw.phase(self._period_s)
        while True:
            yield Wait(max(0.0, due_s - self._machine.now_s))
            received_ns = round(self._machine.now_s * 1e9)
            yield Work(self._draw.of(self._times.capture_s))
            ref = FrameRef(self.name, SESSION, self.captured, received_ns / 1e9, received_ns, 0)
            self.captured += 1
            self._credit.put(Frame(ref, Band.INFRARED, PIXELS), Stamps())
            self._send()
            due_s += self._period_s

    def _poll(self) -> None:
        """Request credit again where it is due, as the capture worker does whatever happens."""
        self._send()
        self._machine.at(self._machine.now_s + CREDIT_REQUEST_PERIOD_S / 2, self._poll)

    def _send(self) -> None:
        now_s = self._machine.now_s
        if self._credit.request_due(now_s):
            self._machine.at(now_s + LINK_S, lambda: self._worker.request(self))
        if taken := self._credit.take(now_s):
            self._machine.at(now_s + LINK_S, lambda: self._worker.receive(self, *taken))
