"""What a capture worker reports to the track worker beside frames: its camera's state, and copies of its ledger."""

import time
from contextlib import suppress

import structlog
import zmq

from pipeline.transport.link import Uplink
from pipeline.transport.wire import LedgerCopy, encode
from pipeline.types import CameraState

COPY_INTERVAL_S = 1.0  # of ledger copies to another host


class CameraReports:
    """Sends the state of one camera and session.  `close` ends it."""

    def __init__(self, link: Uplink, camera: str, session: str) -> None:
        self._camera, self._session = camera, session
        self._copies_ledger = link.remote
        self._copied_s = 0.0
        self._log = structlog.get_logger().bind(camera=camera)
        self._socket = link.connected(zmq.PUSH, link.results, high_water=16, linger_ms=500, patient=True)

    def send_state(self, state: CameraState) -> None:
        """Send a change of state, or log that the queue to the track worker is full."""
        try:
            self._socket.send_multipart(encode(state), flags=zmq.DONTWAIT)
        except zmq.Again:
            self._log.warning("camera state not sent: the queue to the track worker is full")

    @property
    def is_ledger_due(self) -> bool:
        """Return whether the inference host is another one and due for a copy of the ledger."""
        return self._copies_ledger and time.monotonic() - self._copied_s >= COPY_INTERVAL_S

    def send_ledger(self, words: bytes) -> None:
        """Send a copy of the ledger to the inference host, which accounts for all cameras of the site."""
        self._copied_s = time.monotonic()
        with suppress(zmq.Again):  # the next copy holds all of it again
            self._socket.send_multipart(encode(LedgerCopy(self._camera, self._session, words)), flags=zmq.DONTWAIT)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
