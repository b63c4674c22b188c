"""Clips of an edge host on their way to the inference host: requests in, finished clips out.

    track worker -- ClipRequest, ClipTake --> ClipUplink -- ClipRequest, over clips-<camera>.sock --> ClipRecorder
    track worker <-- ClipPoll, ClipChunk -- ClipUplink <-- run_dir/clips/<alert>.mp4, .json -- ClipRecorder

The inference host is asked once a second for what it wants, so that a link may break at any time: requests are repeated
there, and clips wait here as files, also across restarts.  One clip of a camera is offered at a time, the oldest; the
inference host takes it part by part, at its own pace, and says when it has it: then it is deleted here.
"""

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import structlog
import zmq

from pipeline.errors import WireError
from pipeline.store.clips import (
    LOST,
    PARTIAL,
    RECORD,
    ClipRecord,
    read_record,
    record_path,
    record_without_clip,
    video_path,
    write_record,
)
from pipeline.store.metrics import ClipMetrics
from pipeline.timeouts import CLIP_DRAIN_TIMEOUT_S
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.link import Uplink
from pipeline.transport.rejects import RejectLog
from pipeline.transport.socket_thread import SocketThread
from pipeline.transport.sockets import Socket, connected
from pipeline.transport.wire import ClipChunk, ClipPoll, ClipRequest, ClipTake, decode, encode

POLL_S = 1.0
CHUNK_BYTES = 1 << 18  # small beside frames, which share the link
MAX_WAITING_BYTES = 2_000_000_000  # of a camera's clips


class ClipUplink(SocketThread):
    """The thread, from entry to exit.  It writes only to what `ClipRecorder` has finished."""

    def __init__(
        self, camera: str, session: str, link: Uplink, folder: Path, metrics: ClipMetrics, rejects: RejectLog
    ) -> None:
        super().__init__("clip uplink", CLIP_DRAIN_TIMEOUT_S)
        self._camera, self._session, self._link = camera, session, link
        self._folder, self._metrics, self._rejects = folder, metrics, rejects
        self._log = structlog.get_logger().bind(camera=camera)

    def _run(self) -> None:
        host = self._link.connected(zmq.DEALER, self._link.clips, high_water=16)
        recorder = connected(zmq.PUSH, Endpoints.clips(self._camera), high_water=64, patient=True)
        poller = self._poller(host)
        poll_s = 0.0
        while not self._closing:
            now_s = time.monotonic()
            if now_s >= poll_s:
                poll_s = now_s + POLL_S
                self._poll(host)
            poller.poll(math.ceil(max(0.0, poll_s - now_s) * 1e3))
            while not self._closing and host.poll(0):
                self._receive(host, recorder)
        recorder.close()
        host.close()

    def _receive(self, host: Socket, recorder: Socket) -> None:
        try:
            message, _ = decode(host.recv_multipart())
            if not isinstance(message, ClipRequest | ClipTake) or message.camera != self._camera:
                raise WireError(
                    f"{type(message).__name__}: expected ClipRequest or ClipTake of camera {self._camera!r}"
                )
        except WireError as error:
            self._rejects.reject(error)
            return
        if isinstance(message, ClipTake):
            self._take(host, message)
        else:
            with suppress(zmq.Again):  # it is repeated
                recorder.send_multipart(encode(message), flags=zmq.DONTWAIT)

    def _poll(self, host: Socket) -> None:
        """Ask for requests, and offer the oldest clip."""
        try:
            waiting = list(self._waiting())
            self._limit(waiting)
        except OSError as error:
            self._log.warning("clips not offered to the inference host", reason=str(error))
            waiting = []
        self._send(host, *encode(ClipPoll(self._camera, self._session, waiting[0] if waiting else None)))

    def _take(self, host: Socket, take: ClipTake) -> None:
        """Send a part of a clip, or delete one that the inference host has."""
        video, about = video_path(self._folder, take.alert), record_path(self._folder, take.alert)
        try:
            record = read_record(about)
        except (OSError, ValueError):  # deleted
            return
        try:
            if take.offset >= record.size_bytes:
                video.unlink(missing_ok=True)
                about.unlink()
                self._poll(host)
                return
            with video.open("rb") as file:
                file.seek(take.offset)
                data = file.read(CHUNK_BYTES)
        except OSError as error:
            self._lose(record, "disk", f"it cannot be read on the edge host ({error.strerror})")
            return
        self._send(host, *encode(ClipChunk(self._camera, take.alert, take.offset), data))

    def _send(self, host: Socket, *parts: bytes) -> None:
        with suppress(zmq.Again):  # the inference host is away
            host.send_multipart(parts, flags=zmq.DONTWAIT)

    def _waiting(self) -> Iterator[ClipRecord]:
        """Yield the records of the camera's finished clips, the oldest first."""
        for path in sorted(self._folder.glob(f"*{RECORD}")):
            if path.name.endswith(PARTIAL + RECORD):
                continue
            try:
                record = read_record(path)
            except (FileNotFoundError, ValueError):  # another camera's, deleted meanwhile; or damaged
                continue
            if record.camera == self._camera:
                yield record

    def _limit(self, waiting: list[ClipRecord]) -> None:
        """Give up the oldest clips where the inference host takes them too slowly."""
        excess_bytes = sum(record.size_bytes for record in waiting) - MAX_WAITING_BYTES
        for number, record in enumerate(waiting):
            if excess_bytes <= 0:
                return
            if record.ended != LOST:
                excess_bytes -= record.size_bytes
                waiting[number] = self._lose(record, "link", "the link was too slow for all clips of its camera")

    def _lose(self, record: ClipRecord, cause: str, reason: str) -> ClipRecord:
        lost = record_without_clip(record.alert, record.camera, record.session, record.first_detection_pts_s, reason)
        with suppress(OSError):  # the next try may succeed
            write_record(record_path(self._folder, record.alert), lost)
            video_path(self._folder, record.alert).unlink(missing_ok=True)
            self._metrics.lost(cause)
            self._log.error("clip lost", alert=record.alert, cause=cause, reason=reason)
        return lost
