"""The capture side of the credit flow: which frames wait, which are in flight, and when one may leave.

In: frames, the segmentation worker's credit messages, the time.  Out: the next message to send, and every frame's
outcome in the camera's ledger, written here and nowhere else.  No socket and no clock; not thread-safe.
"""

from typing import Protocol

from pipeline.timeouts import CREDIT_REQUEST_PERIOD_S, OUTCOME_TIMEOUT_S
from pipeline.transport.frame_queue import FrameQueue
from pipeline.transport.wire import Credit, Stamps
from pipeline.types import Cause, Frame

MAX_IN_FLIGHT = 2  # frames of a camera: one is inferred while the previous one is post-processed


class Outcomes(Protocol):
    """Takes note of what becomes of frames, as the camera's ledger does (`pipeline.store.ledger`)."""

    def sent(self) -> None:
        """Count a frame that is in flight now."""

    def segmented(self) -> None:
        """Count a frame in flight as segmented."""

    def failed(self, cause: Cause) -> None:
        """Count a frame in flight as failed."""

    def dropped(self, cause: Cause, frames: int = 1) -> None:
        """Count frames that were never sent."""


class CreditClient:
    """Frames of one session: queue -> in flight -> outcome."""

    def __init__(self, ledger: Outcomes, max_age_s: float) -> None:
        """Start without credit; `max_age_s` bounds the queue, see `FrameQueue`."""
        self._ledger = ledger
        self._queue = FrameQueue(max_age_s)
        self._in_flight: dict[int, float] = {}  # sequence number -> when it was sent
        self._replaced = 0  # by overload, since the last frame was sent
        self._granted = False
        self._requested = False  # since the last frame left or had its outcome
        self._contact_s = 0.0  # when credit was last requested or used
        self._worker = ""  # the segmentation worker that granted the last credit
        self.overdue = 0.0  # share of the view that the network did not process in time, as of the newest credit

    @property
    def is_queue_empty(self) -> bool:
        """Whether no frame waits for credit."""
        return not self._queue

    @property
    def is_drained(self) -> bool:
        """Whether every frame has its outcome."""
        return not self._queue and not self._in_flight

    def put(self, frame: Frame, stamps: Stamps) -> None:
        """Queue a frame; the older ones that it replaces are dropped by overload."""
        if replaced := self._queue.put(frame, stamps):
            self._ledger.dropped(Cause.OVERLOAD, replaced)
            self._replaced += replaced

    def receive(self, credit: Credit) -> None:
        """Record the outcomes that a message reports, and the credit that it grants."""
        if credit.worker != self._worker:  # a new segmentation worker: the frames of the old one are lost
            self._fail(list(self._in_flight))
            self._worker = credit.worker
        self.overdue = credit.overdue
        for seq in credit.segmented:
            if self._in_flight.pop(seq, None) is not None:
                self._ledger.segmented()
        self._fail(credit.failed)
        # Credit that was granted before the last frame arrived there is the credit which that frame used up.
        has_arrived = max(self._in_flight, default=-1) <= credit.newest
        self._granted = credit.granted and has_arrived and len(self._in_flight) < MAX_IN_FLIGHT
        if credit.segmented or credit.failed:
            self._requested = False

    def expire(self, now_s: float) -> None:
        """Fail the frames that have been without an outcome for too long."""
        lost = [seq for seq, sent_s in self._in_flight.items() if sent_s < now_s - OUTCOME_TIMEOUT_S]
        if lost:
            self._fail(lost)
            self._granted = False  # to be requested again

    def request_due(self, now_s: float) -> bool:
        """Return whether to request credit now; if so, the request counts as sent."""
        if self._granted:
            return False
        is_repeat = now_s - self._contact_s >= CREDIT_REQUEST_PERIOD_S
        has_waiting = bool(self._queue) and (is_repeat or not self._requested)
        if not has_waiting and not (self._in_flight and is_repeat):
            return False
        self._requested, self._contact_s = True, now_s
        return True

    def take(self, now_s: float) -> tuple[Frame, Stamps] | None:
        """Return the frame to send now, which is then in flight; None without a frame or credit."""
        if not self._granted or not self._queue:
            return None
        frame, stamps = self._queue.take()
        stamps.replaced, self._replaced = self._replaced, 0
        self._granted, self._requested, self._contact_s = False, False, now_s
        self._in_flight[frame.ref.seq] = now_s
        self._ledger.sent()
        return frame, stamps

    def not_sent(self, seq: int) -> None:
        """Fail a frame that could not be sent: the segmentation worker is gone, and its credit with it."""
        self._fail([seq])

    def close(self) -> None:
        """Give the remaining frames their outcome: waiting ones are dropped, those in flight have failed."""
        if waiting := self._queue.clear():
            self._ledger.dropped(Cause.OVERLOAD, waiting)
        self._fail(list(self._in_flight))

    def _fail(self, sequence_numbers: list[int]) -> None:
        for seq in sequence_numbers:
            if self._in_flight.pop(seq, None) is not None:
                self._ledger.failed(Cause.FAILED)
