"""The capture worker's end of the credit flow: the socket and its thread around `CreditClient`.

One thread decodes and offers frames; another owns the socket.  A frame that waits requests credit, and leaves when it
is granted: when the segmentation worker is about to be free, so that it ages nowhere else.  Of a live camera the newest
frame waits, and for a moment a few more (see `frame_queue`); those that it replaces are dropped by overload.  A
recording blocks instead and loses nothing.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import zmq
from prometheus_client import Counter

from pipeline.errors import WireError
from pipeline.store.ledger import Ledger
from pipeline.timeouts import CREDIT_REQUEST_PERIOD_S
from pipeline.transport.clock_offset import ClockExchange, Reachability
from pipeline.transport.credit import CreditClient
from pipeline.transport.link import Uplink
from pipeline.transport.payloads import frame_message
from pipeline.transport.rejects import RejectLog
from pipeline.transport.wire import Credit, CreditRequest, EndOfStream, Stamps, TimeReply, TimeRequest, decode, encode
from pipeline.types import Frame


class Channel:
    """Send a camera's frames: `offer` hands one over, `close` ends.  Both are called by the decoder.

    To another host, times are sent in that host's monotonic clock; no frame leaves before its offset is known.
    """

    def __init__(
        self,
        uplink: Uplink,
        camera: str,
        session: str,
        *,
        live: bool,
        max_age_s: float,
        ledger: Ledger,
        rejected: Counter,
    ) -> None:
        """Connect, and start the thread.

        Args:
            uplink: where to send.
            camera: id.
            session: of this capture worker.
            live: frames may be dropped; else `offer` blocks.
            max_age_s: how long frames of a live camera may wait before the newest replaces them.
            ledger: of the camera.
            rejected: counts messages that are rejected.
        """
        self._camera = camera
        self._session = session
        self._live = live
        self._uplink = uplink
        self._ledger = ledger
        self._lock = threading.Condition()  # guards the ledger and the credit
        self._credit = CreditClient(ledger, max_age_s)
        self._clock = ClockExchange(time.monotonic()) if uplink.remote else None
        self.offset_ns: int | None = None if uplink.remote else 0  # by which the clock of sent frames is ahead
        self._rejects = RejectLog("credit", rejected)
        self._closing = False
        self._ended = False  # the end of the stream is still to be sent
        self._log = structlog.get_logger().bind(camera=camera, address=uplink.frames)
        self._socket = uplink.connected(zmq.DEALER, uplink.frames, high_water=4, linger_ms=500)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)
        self._thread.start()

    def offer(self, frame: Frame, stamps: Stamps, stopped: Callable[[], bool] = lambda: False) -> None:
        """Queue a frame.  A live one may replace others; a recorded one waits until the queue is empty."""
        with self._lock:
            while not self._live and not self._credit.is_queue_empty:
                if stopped():
                    return
                self._lock.wait(0.2)
            self._credit.put(frame, stamps)
        os.eventfd_write(self._wake, 1)

    @property
    def overdue(self) -> float:
        """Which share of the view, 0 to 1, the network did not process in time, as of the newest credit."""
        with self._lock:
            return self._credit.overdue

    def count(self, change: Callable[[Ledger], None]) -> None:
        """Make any other entry in the ledger, which both threads write."""
        with self._lock:
            change(self._ledger)

    def drain(self, timeout_s: float) -> bool:
        """Wait until every offered frame has its outcome; return False where the time is too short."""
        with self._lock:
            return self._lock.wait_for(lambda: self._credit.is_drained, timeout_s)

    def finish(self, timeout_s: float) -> bool:
        """Drain after the last frame of a recording, then send the end of the stream; return False as `drain`."""
        drained = self.drain(timeout_s)
        with self._lock:
            self._ended = True
        os.eventfd_write(self._wake, 1)
        return drained

    def close(self) -> None:
        """End the thread; waiting frames are counted as dropped, those in flight as failed."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        with self._lock:
            self._credit.close()
            self._lock.notify_all()
        os.close(self._wake)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        while not self._closing:
            ready = dict(poller.poll(int(CREDIT_REQUEST_PERIOD_S * 500)))
            if self._wake in ready:
                os.eventfd_read(self._wake)
            while self._socket in ready and self._socket.poll(0):
                self._receive(self._socket.recv_multipart())
            with self._lock:
                self._credit.expire(time.monotonic())
                self._lock.notify_all()
            self._send()
        self._socket.close()

    def _receive(self, parts: list[bytes]) -> None:
        try:
            message, _ = decode(parts)
            if not isinstance(message, Credit | TimeReply) or message.session != self._session:
                raise WireError(f"{type(message).__name__}: expected credit of this session")
        except WireError as error:
            self._rejects.reject(error)
            return
        if isinstance(message, Credit):
            with self._lock:
                self._credit.receive(message)
                self._lock.notify_all()
        elif self._clock is not None:
            change = self._clock.replied(message.asked_ns, message.said_ns, time.monotonic_ns())
            if change is Reachability.RECOVERED:
                self._log.info("inference host reachable")

    def _exchange_clock(self, clock: ClockExchange, now_s: float) -> None:
        if clock.request_due(now_s):
            self._try(encode(TimeRequest(self._camera, self._session, time.monotonic_ns())))
        if clock.check(now_s) is Reachability.LOST:
            self._log.warning("inference host unreachable or key rejected")

    def _send(self) -> None:
        if self._ended and self._try(encode(EndOfStream(self._camera, self._session))):
            self._ended = False
        now_s = time.monotonic()
        if self._clock is not None:
            self._exchange_clock(self._clock, now_s)
            self.offset_ns = self._clock.offset_ns
        offset_ns = self.offset_ns
        if offset_ns is None:
            return
        with self._lock:
            is_request_due = self._credit.request_due(now_s)
            taken = self._credit.take(now_s)
            if taken is not None:
                self._lock.notify_all()
        if is_request_due:
            self._try(encode(CreditRequest(self._camera, self._session, self._live)))
        if taken is not None:
            self._send_frame(*taken, offset_ns)

    def _send_frame(self, frame: Frame, stamps: Stamps, offset_ns: int) -> None:
        stamps.sent_ns = time.monotonic_ns() + offset_ns
        sent = msgspec.structs.replace(frame.ref, received_mono_ns=frame.ref.received_mono_ns + offset_ns)
        message = frame_message(Frame(sent, frame.band, frame.pixels), stamps, self._live, jpeg=self._uplink.jpeg)
        if not self._try(message):
            with self._lock:
                self._credit.not_sent(frame.ref.seq)
                self._lock.notify_all()

    def _try(self, message: list[Any]) -> bool:
        """Send a message; return False where no segmentation worker is there.

        It is copied: without, pyzmq releases pixels through a thread of its own, which races with the process's end.
        """
        try:
            self._socket.send_multipart(message, flags=zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True
