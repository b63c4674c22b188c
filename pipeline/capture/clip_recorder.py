"""Clips of alerts, from the packets of the camera itself.

    source -- packets --> PacketRing <-- places of clips -- ClipRecorder --> run_dir/clips/<alert>.mp4, .json
    track worker -- ClipRequest (start; end), over clips-<camera>.sock --> ClipRecorder

The capture worker keeps the newest packets in memory (`PacketRing`).  When an alert opens, the track worker asks for a
clip by the session and the time of the track's first detection, and again when the alert ends.  The recorder, a thread,
copies packets from the last keyframe that is `pre_s` before the first detection, until `post_s` after the end, at most
`max_s`, and then checks that the first detection's frame is in the file.  Clips end early where the stream does.

Nothing here blocks decoding or an alert: the ring is the bounded queue, and what a slow disk misses is counted; a clip
that cannot be written is lost, with its cause.  Clips of a killed worker are completed by the next one, as incomplete.

On an edge host the same thread writes the same files; `ClipUplink` passes the requests on, and the clips.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
import zmq

from pipeline.capture.clip_file import ERRORS, ClipFile
from pipeline.capture.clip_recovery import recover
from pipeline.capture.clip_uplink import ClipUplink
from pipeline.capture.packet_ring import PacketRing, TimedPacket
from pipeline.capture.source import CodedStream
from pipeline.capture.video_feed import VideoFeed
from pipeline.config.camera import Camera
from pipeline.config.models import Config
from pipeline.config.storage import RecordingConfig
from pipeline.errors import WireError
from pipeline.store.clips import ClipRecord, record_path, record_without_clip, write_record
from pipeline.store.metrics import ClipMetrics
from pipeline.telemetry.metrics import CaptureMetrics
from pipeline.timeouts import CLIP_DRAIN_TIMEOUT_S
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.link import Uplink
from pipeline.transport.rejects import RejectLog
from pipeline.transport.socket_thread import SocketThread
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import ClipRequest, decode

DETECTION_DELAY_S = 10.0  # from a track's first detection until its alert's request arrives
WRITE_PERIOD_MS = 500
SILENCE_S = 5.0  # more than `post_s` without a packet: the camera is lost
MAX_CLIPS = 16  # at once
MB = 1_000_000


@contextmanager
def recorded(
    config: Config, camera: Camera, session: str, link: Uplink, metrics: CaptureMetrics
) -> Iterator[PacketRing | None]:
    """Record clips of this camera's session from entry to exit, if configured; yield the ring for its packets."""
    if not config.recording.enabled:
        yield None
        return
    settings = config.recording
    ring = PacketRing(settings.pre_s + DETECTION_DELAY_S, round(settings.ring_mb * MB))
    metrics.clips.ring_s.set_function(lambda: ring.length_s)
    metrics.clips.ring_bytes.set_function(lambda: ring.size_bytes)
    rejects = RejectLog("clips", metrics.refused)
    recorder = ClipRecorder(camera.id, session, settings, config.clips_path, ring, metrics.clips, rejects)
    sends = (
        ClipUplink(camera.id, session, link, config.clips_path, metrics.clips, rejects)
        if link.remote
        else nullcontext()
    )
    with recorder, sends, VideoFeed(camera.id, session, ring, metrics.video_ended):
        yield ring


@dataclass
class _Clip:
    """A clip in progress; it has no file before its first packet."""

    request: ClipRequest
    place: int  # in the ring
    active_s: float  # monotonic, when the last packet came
    until_s: float = math.inf  # in the session's time
    stream: CodedStream | None = None
    file: ClipFile | None = None
    missed: int = 0


class ClipRecorder(SocketThread):
    """The thread, from entry to exit.  Clips in progress are finished at exit."""

    def __init__(
        self,
        camera: str,
        session: str,
        settings: RecordingConfig,
        folder: Path,
        ring: PacketRing,
        metrics: ClipMetrics,
        rejects: RejectLog,
    ) -> None:
        super().__init__("clips", CLIP_DRAIN_TIMEOUT_S)
        self._camera, self._session, self._settings = camera, session, settings
        self._folder, self._ring, self._metrics, self._rejects = folder, ring, metrics, rejects
        self._clips: dict[str, _Clip] = {}  # by alert
        self._is_failing = False
        self._log = structlog.get_logger().bind(camera=camera)

    def _run(self) -> None:
        recover(self._folder, self._camera, self._metrics)
        socket = bound(zmq.PULL, Endpoints.clips(self._camera), high_water=64)
        poller = self._poller(socket)
        while not self._closing:
            poller.poll(WRITE_PERIOD_MS if self._clips else None)
            while socket.poll(0):
                self._receive(socket)
            self._write()
        socket.close()
        for clip in list(self._clips.values()):
            self._end(clip, "stopped")

    def _receive(self, socket: Socket) -> None:
        try:
            message, _ = decode(socket.recv_multipart())
            if not isinstance(message, ClipRequest) or message.camera != self._camera:
                raise WireError(f"{type(message).__name__}: expected ClipRequest of camera {self._camera!r}")
        except WireError as error:
            self._rejects.reject(error)
            return
        self._start(message)
        if message.end_pts_s is not None and message.alert in self._clips:
            self._clips[message.alert].until_s = message.end_pts_s + self._settings.post_s

    def _start(self, request: ClipRequest) -> None:
        if request.alert in self._clips or record_path(self._folder, request.alert).exists():
            return  # it was requested before
        place = self._ring.place(request.first_pts_s, self._settings.pre_s)
        if request.session != self._session:
            self._lose(request, "session", "the alert is of an earlier session")
        elif len(self._clips) == MAX_CLIPS:
            self._lose(request, "overload", f"{MAX_CLIPS} clips are being written")
        elif place is None:
            self._lose(request, "empty", "no keyframe in memory: recording.ring_mb may be too small")
        else:
            self._clips[request.alert] = _Clip(request, place, time.monotonic())

    def _write(self) -> None:
        """Append the new packets to every clip, and end those that are over."""
        now_s = time.monotonic()
        for clip in list(self._clips.values()):
            reading = self._ring.since(clip.place)
            clip.place = reading.place
            clip.missed += reading.missed
            try:
                over = self._append(clip, reading.packets)
            except ERRORS as error:
                self._fail(clip, error)
                continue
            if reading.packets:
                clip.active_s = now_s
            elif now_s - clip.active_s > self._settings.post_s + SILENCE_S:
                over = "stream"
            if over:
                self._end(clip, over)

    def _append(self, clip: _Clip, packets: Sequence[TimedPacket]) -> str:
        """Return why the clip is over; empty: it goes on.  Raise ERRORS."""
        for timed in packets:
            if clip.file is None:
                clip.stream = timed.packet.stream
                clip.file = self._opened(clip, timed)
            if timed.packet.stream is not clip.stream:
                return "stream"
            if timed.pts_s > clip.until_s:
                return "post_s"
            if timed.pts_s > self._limit_s(clip.file.record):
                return "max_s"
            clip.file.write(timed)
        return ""

    def _limit_s(self, record: ClipRecord) -> float:
        """Return where a clip is cut; what its first keyframe is earlier than `pre_s` does not count."""
        first_s = record.zero_pts_s if record.first_pts_s is None else record.first_pts_s
        return max(first_s, record.first_detection_pts_s - self._settings.pre_s) + self._settings.max_s

    def _opened(self, clip: _Clip, first: TimedPacket) -> ClipFile:
        stream, request = first.packet.stream, clip.request
        record = ClipRecord(
            request.alert,
            request.camera,
            request.session,
            request.first_pts_s,
            stream.codec,
            stream.size_px,
            first.pts_s if first.decode_s is None else first.decode_s,
        )
        return ClipFile(self._folder, record, stream)

    def _end(self, clip: _Clip, ended: str) -> None:
        del self._clips[clip.request.alert]
        if clip.file is None:
            self._lose(clip.request, "empty", "no packet came")
            return
        clip.file.record.missed_packets = clip.missed
        try:
            record = clip.file.finish(ended)
        except ERRORS as error:
            self._fail(clip, error)
            return
        self._metrics.written.inc()
        self._metrics.incomplete.inc(not record.is_complete)
        level = self._log.info if record.is_complete else self._log.warning
        level("clip written", alert=record.alert, packets=record.packets, ended=ended, reason=record.reason)
        if self._is_failing:
            self._log.warning("clips recovered")
        self._is_failing = False

    def _fail(self, clip: _Clip, error: Exception) -> None:
        """Give a clip up that cannot be written."""
        self._clips.pop(clip.request.alert, None)
        if clip.file is not None:
            clip.file.discard()
        cause = "codec" if isinstance(error, ValueError) else "disk"
        self._lose(clip.request, cause, getattr(error, "strerror", None) or str(error))

    def _lose(self, request: ClipRequest, cause: str, reason: str) -> None:
        about = record_path(self._folder, request.alert)
        lost = record_without_clip(request.alert, self._camera, request.session, request.first_pts_s, reason)
        with suppress(OSError):  # the disk is full, perhaps
            write_record(about, lost)
        self._metrics.lost(cause)
        log = self._log.debug if self._is_failing else self._log.error
        log("clip lost", alert=request.alert, cause=cause, reason=reason)
        self._is_failing = True
