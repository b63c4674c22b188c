"""The capture worker's end of the credit flow.

One thread decodes and offers frames; another owns the socket.  A frame that waits asks for credit, and leaves when it
is granted: when the segmentation worker is about to be free, so that it ages nowhere else.  Of a live camera the newest
frame waits, and for a moment a few more (see `mailbox`): those that it replaces are counted as dropped by overload.  A
recording blocks instead and loses nothing.  Every frame's fate is written to the ledger here and nowhere else.
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
from pipeline.transport.clock_offset import ClockOffset
from pipeline.transport.frame_queue import FrameQueue
from pipeline.transport.link import Uplink
from pipeline.transport.rejects import RejectLog
from pipeline.transport.wire import (
    Credit,
    CreditRequest,
    EndOfStream,
    Stamps,
    TimeReply,
    TimeRequest,
    decode,
    encode,
    frame_message,
)
from pipeline.types import Cause, Frame

CREDITS = 2  # frames of a camera that may be under way: one is searched while the one before it is measured
HELLO_S = 0.5  # how often credit is asked for again: the segmentation worker may be another by then
ASK_S = 1.0  # how often another host is asked for its time
SILENCE_S = 5.0  # without an answer from it for so long, that is told
DEADLINE_S = 10.0  # without news of a frame for this long, it is counted as failed


class Channel:
    """`offer` hands a frame over; `close` ends.  Called by the decoder.

    To another host, times leave as that host's: it is asked for its monotonic clock, and no frame leaves before.
    """

    def __init__(
        self,
        uplink: Uplink,
        camera: str,
        session: str,
        *,
        live: bool,
        bridge_s: float,
        ledger: Ledger,
        refused: Counter,
    ) -> None:
        """`bridge_s`: how long frames of a live camera may wait before the newest replaces them."""
        self._camera = camera
        self._session = session
        self._live = live
        self._ledger = ledger
        self._refusals = RejectLog("credit", refused)
        self._lock = threading.Condition()
        self._mailbox = FrameQueue(bridge_s)
        self._flying: dict[int, float] = {}  # sequence number -> when it was sent
        self._granted = False
        self._asks = False  # for credit, since the last frame left or met its fate
        self._worker = ""  # the segmentation worker that gave the credit
        self._closing = False
        self._ended = False
        self._told_s = 0.0  # when the last CreditRequest was sent
        self._asked_s = 0.0
        self._away = uplink.away
        self._answered_s = time.monotonic()  # when another host was last heard of
        self._silent = False  # and whether it was told that it is not
        self._log = structlog.get_logger().bind(camera=camera, address=uplink.frames)
        self._jpeg = uplink.jpeg
        self._clock = ClockOffset()
        self._socket = uplink.connected(zmq.DEALER, uplink.frames, high_water=4, linger_ms=500)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)
        self._thread.start()

    def offer(self, frame: Frame, stamps: Stamps, stopped: Callable[[], bool] = lambda: False) -> None:
        """A live frame may replace those in the mailbox; a recorded one waits until that is empty."""
        with self._lock:
            while self._mailbox and not self._live:
                if stopped():
                    return
                self._lock.wait(0.2)
            if replaced := self._mailbox.put(frame, stamps):
                self._ledger.dropped(Cause.OVERLOAD, replaced)
        os.eventfd_write(self._wake, 1)

    def count(self, change: Callable[[Ledger], None]) -> None:
        """Any other entry in the ledger, which both threads write."""
        with self._lock:
            change(self._ledger)

    def drain(self, timeout_s: float) -> bool:
        """Wait until every frame offered has met its fate.  False: not within the time."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._mailbox and not self._flying, timeout_s)

    def finish(self, timeout_s: float) -> bool:
        """After the last frame of a recording: wait for the fates, then say that it ended.  False: not in time."""
        drained = self.drain(timeout_s)
        with self._lock:
            self._ended = True
        os.eventfd_write(self._wake, 1)
        return drained

    def close(self) -> None:
        """What is still under way is counted: in the mailbox as dropped, in flight as failed."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        with self._lock:
            if waiting := self._mailbox.clear():
                self._ledger.dropped(Cause.OVERLOAD, waiting)
            self._fail(list(self._flying))
        os.close(self._wake)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        while not self._closing:
            ready = dict(poller.poll(int(HELLO_S * 500)))
            if self._wake in ready:
                os.eventfd_read(self._wake)
            while self._socket in ready and self._socket.poll(0):
                self._receive(self._socket.recv_multipart())
            self._expire()
            self._send()
        self._socket.close()

    def _receive(self, parts: list[bytes]) -> None:
        try:
            message, _ = decode(parts)
            if isinstance(message, TimeReply) and message.session == self._session:
                self._clock.update(message.asked_ns, message.said_ns, time.monotonic_ns())
                self._hear(time.monotonic())
                return
            if not isinstance(message, Credit) or message.session != self._session:
                raise WireError(f"a {type(message).__name__} that is no credit of this session")
        except WireError as error:
            self._refusals.refuse(error)
            return
        with self._lock:
            if message.worker != self._worker:  # a new segmentation worker: what the old one had is lost
                self._fail(list(self._flying))
                self._worker = message.worker
            for seq in message.segmented:
                if self._flying.pop(seq, None) is not None:
                    self._ledger.segmented()
            self._fail(message.failed)
            # Credit that was given before the last frame came there is what that frame used up.
            arrived = max(self._flying, default=-1) <= message.newest
            self._granted = message.granted and arrived and len(self._flying) < CREDITS
            if message.segmented or message.failed:
                self._asks = False
            self._lock.notify_all()

    def _hear(self, now_s: float) -> None:
        self._answered_s = now_s
        if self._silent:
            self._silent = False
            self._log.info("the host that searches answers")

    def _ask(self, now_s: float) -> None:
        """Another host, for its time."""
        if now_s - self._asked_s >= ASK_S:
            self._asked_s = now_s
            self._try(encode(TimeRequest(self._camera, self._session, time.monotonic_ns())))
        if not self._silent and now_s - self._answered_s >= SILENCE_S:
            self._silent = True
            self._log.warning("the host that searches does not answer: it is not there, or refuses this host's key")

    def _expire(self) -> None:
        late = time.monotonic() - DEADLINE_S
        with self._lock:
            lost = [seq for seq, sent_s in self._flying.items() if sent_s < late]
            if lost:
                self._fail(lost)
                self._granted = False  # to be asked for again

    def _fail(self, sequence_numbers: list[int]) -> None:
        for seq in sequence_numbers:
            if self._flying.pop(seq, None) is not None:
                self._ledger.failed(Cause.FAILED)
        self._lock.notify_all()

    def _send(self) -> None:
        if self._ended and self._try(encode(EndOfStream(self._camera, self._session))):
            self._ended = False
        now_s = time.monotonic()
        if self._away:
            self._ask(now_s)
        offset_ns = self._clock.ns if self._away else 0
        if offset_ns is None:
            return
        with self._lock:
            if not self._granted:
                first, again = not self._asks, now_s - self._told_s >= HELLO_S
                if (self._mailbox and (first or again)) or (self._flying and again):
                    self._asks, self._told_s = True, now_s
                    self._try(encode(CreditRequest(self._camera, self._session, self._live)))
                return
            if not self._mailbox:
                return
            frame, stamps = self._mailbox.take()
            self._granted, self._asks, self._told_s = False, False, now_s
            self._flying[frame.ref.seq] = now_s
            self._ledger.sent()
            self._lock.notify_all()
        stamps.sent_ns = time.monotonic_ns() + offset_ns
        sent = msgspec.structs.replace(frame.ref, received_mono_ns=frame.ref.received_mono_ns + offset_ns)
        message = frame_message(Frame(sent, frame.band, frame.pixels), stamps, self._live, jpeg=self._jpeg)
        if not self._try(message):  # the segmentation worker is gone, and its credit with it
            with self._lock:
                self._fail([frame.ref.seq])

    def _try(self, message: list[Any]) -> bool:
        """Copied: without, pyzmq releases a picture through a thread of its own, which races with the process's end."""
        try:
            self._socket.send_multipart(message, flags=zmq.DONTWAIT)
        except zmq.Again:  # no segmentation worker is there
            return False
        return True
