"""The camera's own video for the console, from the ring of its newest packets: see `transport.video`.

A thread muxes the packets for each viewer from the newest keyframe on, as the viewer asks for them.  The ring is the
only queue: it never waits; a viewer who was so slow that packets were overwritten is told so, and begins anew.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import zmq

from pipeline.capture.clip_file import ERRORS
from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.video_mux import CODEC, VideoMux, media_type
from pipeline.timeouts import CLIP_DRAIN_TIMEOUT_S
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.socket_thread import SocketThread
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.video import NEXT, VIEWER_TIMEOUT_S, VideoPart, encode_part

MAX_VIEWERS = 8  # of one camera
POLL_MS = 20  # for new packets, while a viewer waits


@dataclass
class _Viewer:
    heard_s: float
    place: int = 0  # in the ring
    mux: VideoMux | None = None  # None: nothing was sent yet
    is_waiting: bool = True


class VideoFeed(SocketThread):
    """The thread, from entry to exit.

    Args:
        camera: its id.
        session: of the capture worker.
        ring: the newest packets.
        on_end: called, in any thread, with the cause when a viewer's stream is ended or refused.
    """

    def __init__(self, camera: str, session: str, ring: PacketRing, on_end: Callable[[str], None]) -> None:
        super().__init__("video", CLIP_DRAIN_TIMEOUT_S)
        self._camera, self._session, self._ring, self._on_end = camera, session, ring, on_end
        self._viewers: dict[bytes, _Viewer] = {}
        self._log = structlog.get_logger().bind(camera=camera)

    def _run(self) -> None:
        socket = bound(zmq.ROUTER, Endpoints.video(self._camera), high_water=4)
        poller = self._poller(socket)
        while not self._closing:
            poller.poll(POLL_MS if any(viewer.is_waiting for viewer in self._viewers.values()) else 1000)
            while socket.poll(0):
                self._receive(socket)
            for name in list(self._viewers):
                self._serve(socket, name)
        socket.close()

    def _receive(self, socket: Socket) -> None:
        message = socket.recv_multipart()
        if message[1:] != [NEXT]:
            return
        name, now_s = message[0], time.monotonic()
        if name not in self._viewers and len(self._viewers) >= MAX_VIEWERS:
            self._send(socket, name, self._ended("viewers", "too many viewers"))
            return
        viewer = self._viewers.setdefault(name, _Viewer(now_s))
        viewer.heard_s, viewer.is_waiting = now_s, True

    def _serve(self, socket: Socket, name: bytes) -> None:
        viewer = self._viewers[name]
        if time.monotonic() - viewer.heard_s > VIEWER_TIMEOUT_S:
            self._end(name)
        elif viewer.is_waiting:
            try:
                part, fragments = self._next(viewer)
            except ERRORS as error:
                self._log.warning("video cannot be shown", reason=str(error))
                part, fragments = self._ended("failed", "not a stream that MP4 can hold"), b""
            if fragments or part.ended:
                viewer.is_waiting = False
                self._send(socket, name, part, fragments)
                if part.ended:
                    self._end(name)

    def _next(self, viewer: _Viewer) -> tuple[VideoPart, bytes]:
        """Return what a viewer is sent next: nothing, where no packet came."""
        is_first = viewer.mux is None
        if is_first:
            place = self._ring.place(math.inf, 0.0)
            if place is None:
                return VideoPart(), b""
            viewer.place = place
        packets, viewer.place, missed = self._ring.since(viewer.place)
        if missed and not is_first:
            return self._ended("slow", "too slow: packets were overwritten"), b""
        for timed in packets:
            if viewer.mux is None:
                if timed.packet.stream.codec != CODEC:
                    return self._ended("codec", f"codec {timed.packet.stream.codec}, must be {CODEC}"), b""
                viewer.mux = VideoMux(timed.packet.stream, timed.pts_s)
            elif timed.packet.stream is not viewer.mux.stream:
                return self._ended("changed", "the camera's stream began anew"), b""
            viewer.mux.add(timed)
        fragments = viewer.mux.take() if viewer.mux else b""
        if is_first and viewer.mux is not None:
            return VideoPart(self._session, media_type(fragments), viewer.mux.zero_pts_s), fragments
        return VideoPart(), fragments

    def _ended(self, cause: str, reason: str) -> VideoPart:
        self._on_end(cause)
        return VideoPart(ended=reason)

    def _send(self, socket: Socket, name: bytes, part: VideoPart, fragments: bytes = b"") -> None:
        try:
            socket.send_multipart([name, *encode_part(part, fragments)], flags=zmq.DONTWAIT)
        except zmq.ZMQError:  # the viewer is gone
            self._end(name)

    def _end(self, name: bytes) -> None:
        viewer = self._viewers.pop(name, None)
        if viewer is not None and viewer.mux is not None:
            try:
                viewer.mux.close()
            except ERRORS as error:
                self._log.debug("video of a viewer not ended", reason=str(error))
