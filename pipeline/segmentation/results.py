"""Results on their way to the track worker: detections, and previews for people.

In: a frame, its detections and time stamps.  Out: a message on the results socket, whose queue is bounded.
"""

import time
from typing import Any

import structlog
import zmq

from pipeline.segmentation import preview
from pipeline.timeouts import RESULT_SEND_TIMEOUT_S
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.payloads import result_message
from pipeline.transport.sockets import connected
from pipeline.transport.wire import EndOfStream, Stamps, encode
from pipeline.types import Detections, Frame

PREVIEW_PERIOD_S = 0.12  # of frames without detections


class ResultSender:
    """The segmentation worker's socket to the track worker."""

    def __init__(self) -> None:
        self._socket = connected(zmq.PUSH, Endpoints.results, high_water=64, linger_ms=500)
        self._preview_s: dict[str, float] = {}  # camera -> when its last preview was made
        self._log = structlog.get_logger()

    def send(self, frame: Frame, detections: Detections, stamps: Stamps) -> bool:
        """Send a frame's detections; return False where the track worker accepts none."""
        now_s, camera = time.monotonic(), frame.ref.camera
        jpeg = b""
        if len(detections) or now_s - self._preview_s.get(camera, 0.0) >= PREVIEW_PERIOD_S:
            self._preview_s[camera] = now_s
            jpeg = preview.jpeg_preview(frame)
        return self._send(result_message(detections, stamps, jpeg))

    def end_of_stream(self, camera: str, session: str) -> None:
        """Report the end of a recording, after its last result."""
        self._send(encode(EndOfStream(camera, session)))

    def close(self) -> None:
        """Close the socket; messages that wait may still leave for a moment."""
        self._socket.close()

    def _send(self, message: list[Any]) -> bool:
        if not self._socket.poll(round(RESULT_SEND_TIMEOUT_S * 1e3), zmq.POLLOUT):
            self._log.error("track worker accepts no results")
            return False
        self._socket.send_multipart(message)
        return True
