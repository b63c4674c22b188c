"""Clips of cameras on edge hosts, fetched by the inference host: see `pipeline.capture.clip_uplink`.

In: requests for clips, and what edge hosts offer.  Out: `clips/<alert>.mp4` and its record, as of local cameras.  From
its request on, `<alert>.partial.json` says what the clip waits for; so requests outlive this process.  A thread of its
own: the frame loop waits neither for the link nor for a disk.
"""

import math
import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import structlog
import zmq

from pipeline.config.hosts import Link
from pipeline.config.models import Config
from pipeline.errors import WireError
from pipeline.store.clips import (
    PARTIAL,
    RECORD,
    ClipRecord,
    partial,
    read_record,
    record_path,
    record_without_clip,
    video_path,
    write_record,
)
from pipeline.store.metrics import CHECKSUM, UNREQUESTED
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.timeouts import CAPTURE_SILENCE_TIMEOUT_S
from pipeline.tracking.incoming_clip import IncomingClip
from pipeline.transport.link import HostAuthenticator
from pipeline.transport.rejects import RejectLog
from pipeline.transport.wire import ClipChunk, ClipPoll, ClipRequest, ClipTake, camera_of, decode, encode

PERIOD_MS = 200
MAX_PENDING = 256  # clips of a site that are not here yet
MAX_MESSAGES = 64  # received before requests and time-outs are checked
RETRY_S = 10.0  # a part that did not come is asked for again
MAX_FAILURES = 3  # transfers of one clip with a wrong digest
STOP_S = 2.0


@dataclass
class _Pending:
    """A clip that is not here yet."""

    request: ClipRequest
    reason: str = ""  # as its record on the disk says
    sha256: str = ""  # of the clip whose beginning is on the disk
    incoming: IncomingClip | None = None
    asked_s: float = -math.inf  # monotonic, when a part was last asked for
    failures: int = 0


@dataclass
class _Camera:
    """A camera of an edge host, and the connection of its capture worker."""

    host: str
    peer: bytes = b""
    heard_s: float = -math.inf  # monotonic
    pending: dict[str, _Pending] = field(default_factory=dict)  # by alert


class EdgeClips:
    """The thread, from creation to `close`.  `request` and `watch` do not block; they are called by one thread."""

    def __init__(self, config: Config, link: Link, authenticator: HostAuthenticator, metrics: TrackingMetrics) -> None:
        self._authenticator, self._metrics = authenticator, metrics
        self._listener = authenticator.listener(zmq.ROUTER, link.clips_port, 64, metrics.listening)
        self._rejects = RejectLog("clips", metrics.refused)
        self._folder = config.clips_path
        self._hosts = _hosts(config)
        self._cameras: dict[str, _Camera] = {}
        self._requests: queue.Queue[ClipRequest] = queue.Queue(MAX_PENDING)
        self._stop = threading.Event()
        self._log = structlog.get_logger()
        self._thread = threading.Thread(target=self._run, name="edge clips", daemon=True)
        self._thread.start()

    def request(self, request: ClipRequest) -> None:
        """Ask for a clip of an alert, or tell its end."""
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            self._lose(request, UNREQUESTED, "too many clips of edge hosts are not here yet")

    def watch(self, config: Config) -> None:
        """Apply a new configuration."""
        self._hosts = _hosts(config)

    def close(self) -> None:
        """End the thread; what is not here yet is fetched by the next process."""
        self._stop.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        self._follow_cameras()
        self._restore()
        while not self._stop.is_set():
            self._listener.bind()
            self._listener.socket.poll(PERIOD_MS)
            self._follow_cameras()
            with suppress(queue.Empty):
                while True:
                    self._request(self._requests.get_nowait())
            for _ in range(MAX_MESSAGES):
                if not self._listener.socket.poll(0):
                    break
                self._receive()
            self._report()
        self._listener.socket.close()

    def _follow_cameras(self) -> None:
        """Keep the cameras of the newest configuration, and give up the clips of others."""
        hosts = self._hosts
        for name, host in hosts.items():
            if name not in self._cameras or self._cameras[name].host != host:
                self._cameras[name] = _Camera(host, pending=self._pending(name))
        for name in self._cameras.keys() - hosts.keys():
            for pending in self._cameras.pop(name).pending.values():
                self._fail(pending.request, "link", "its camera left the edge host before the clip was fetched")

    def _pending(self, camera: str) -> dict[str, _Pending]:
        return self._cameras[camera].pending if camera in self._cameras else {}

    def _restore(self) -> None:
        """Continue with the clips that an earlier process waited for."""
        for path in sorted(self._folder.glob(f"*{PARTIAL}{RECORD}")):
            with suppress(OSError, ValueError):
                record = read_record(path)
                if record.camera in self._cameras:
                    request = ClipRequest(record.camera, record.session, record.alert, record.first_detection_pts_s)
                    self._pending(record.camera)[record.alert] = _Pending(request, record.reason, record.sha256)

    def _request(self, request: ClipRequest) -> None:
        camera = self._cameras.get(request.camera)
        if camera is None:
            return
        pending = camera.pending.get(request.alert)
        if pending is not None:
            pending.request = request
        elif request.end_pts_s is not None:
            return  # it was lost
        elif sum(len(one.pending) for one in self._cameras.values()) >= MAX_PENDING:
            self._lose(request, UNREQUESTED, "too many clips of edge hosts are not here yet")
            return
        else:
            camera.pending[request.alert] = _Pending(request)
        self._send(camera, request)

    def _receive(self) -> None:
        peer, *parts = self._listener.socket.recv_multipart(copy=False)
        try:
            message, buffers = decode([part.buffer for part in parts])
            self._authenticator.check(camera_of(message), parts[0])
            camera = self._cameras.get(camera_of(message))
            match message:
                case ClipPoll() if camera is not None:
                    self._poll(camera, message, peer.bytes)
                case ClipChunk() if camera is not None and len(buffers) == 1:
                    self._append(camera, message, buffers[0])
                case _:
                    raise WireError(
                        f"{type(message).__name__}: expected ClipPoll or ClipChunk of an edge host's camera"
                    )
        except WireError as error:
            self._rejects.reject(error)

    def _poll(self, camera: _Camera, poll: ClipPoll, peer: bytes) -> None:
        is_reconnected, camera.peer, camera.heard_s = camera.peer != peer, peer, time.monotonic()
        offered = poll.offered
        for alert, pending in camera.pending.items():
            if pending.incoming is None and (offered is None or offered.alert != alert):
                self._send(camera, pending.request)
        if offered is None:
            return
        wanted = camera.pending.get(offered.alert)
        if wanted is None or (wanted.reason and not self._is_kept(offered.alert)):
            camera.pending.pop(offered.alert, None)
            self._send(camera, ClipTake(poll.camera, offered.alert, offered.size_bytes))
        elif offered.is_lost:
            self._fail(wanted.request, "", offered.reason)
            del camera.pending[offered.alert]
            self._send(camera, ClipTake(poll.camera, offered.alert, offered.size_bytes))
        elif is_reconnected or camera.heard_s - wanted.asked_s > RETRY_S:
            self._fetch(camera, wanted, offered)

    def _is_kept(self, alert: str) -> bool:
        """Return whether retention has not deleted what is here of a clip."""
        return partial(record_path(self._folder, alert)).exists()

    def _fetch(self, camera: _Camera, pending: _Pending, offered: ClipRecord) -> None:
        """Begin or continue to fetch a clip."""
        if pending.incoming is None or pending.incoming.record.sha256 != offered.sha256:
            try:
                incoming = IncomingClip(self._folder, offered, is_begun=pending.sha256 == offered.sha256)
                self._mark(pending, f"being fetched from edge host {camera.host!r}", offered.sha256)
            except OSError as error:
                self._log.warning("clip of an edge host not fetched", alert=offered.alert, reason=str(error))
                return
            pending.incoming = incoming
        self._ask(camera, pending, pending.incoming)

    def _append(self, camera: _Camera, chunk: ClipChunk, data: memoryview) -> None:
        pending = camera.pending.get(chunk.alert)
        if pending is None or pending.incoming is None or chunk.offset != pending.incoming.size_bytes:
            return  # it came twice, or too late
        camera.heard_s = time.monotonic()
        try:
            pending.incoming.append(data)
        except OSError as error:
            pending.incoming = None  # offered again
            self._log.warning("clip of an edge host not written", alert=chunk.alert, reason=str(error))
            return
        self._ask(camera, pending, pending.incoming)

    def _ask(self, camera: _Camera, pending: _Pending, incoming: IncomingClip) -> None:
        """Ask for the next part; end with a clip that is complete."""
        record = incoming.record
        pending.asked_s = time.monotonic()
        if incoming.is_all_here:
            try:
                is_right = incoming.finish()
            except OSError as error:
                pending.incoming = None
                self._log.warning("clip of an edge host not written", alert=record.alert, reason=str(error))
                return
            if is_right:
                del camera.pending[record.alert]
                self._log.info("clip fetched", camera=record.camera, alert=record.alert, host=camera.host)
            elif (failures := pending.failures + 1) < MAX_FAILURES:
                pending.failures = failures
            else:
                del camera.pending[record.alert]
                self._fail(pending.request, CHECKSUM, "it was damaged on its way from the edge host")
        offset = incoming.size_bytes if record.alert in camera.pending else record.size_bytes
        self._send(camera, ClipTake(record.camera, record.alert, offset))

    def _send(self, camera: _Camera, message: ClipRequest | ClipTake) -> None:
        if camera.peer:
            self._listener.socket.send_multipart([camera.peer, *encode(message)])  # dropped where nobody is there

    def _report(self) -> None:
        """Say of each clip what it waits for."""
        now_s = time.monotonic()
        for name, camera in self._cameras.items():
            self._metrics.clips_pending.labels(name).set(len(camera.pending))
            is_away = now_s - camera.heard_s > CAPTURE_SILENCE_TIMEOUT_S
            for pending in camera.pending.values():
                reason = f"edge host {camera.host!r} does not answer"
                if not is_away:
                    is_fetched = pending.incoming is not None
                    reason = (
                        f"being fetched from edge host {camera.host!r}"
                        if is_fetched
                        else (f"being recorded by edge host {camera.host!r}")
                    )
                if reason != pending.reason:
                    with suppress(OSError):  # the next call tries again
                        self._mark(pending, reason, pending.sha256)

    def _mark(self, pending: _Pending, reason: str, sha256: str) -> None:
        """Write what a clip waits for.  Raise OSError."""
        request = pending.request
        record = record_without_clip(request.alert, request.camera, request.session, request.first_pts_s, reason, "")
        path = partial(record_path(self._folder, request.alert))
        write_record(path, msgspec.structs.replace(record, sha256=sha256))
        pending.reason, pending.sha256 = reason, sha256

    def _fail(self, request: ClipRequest, cause: str, reason: str) -> None:
        """Write why there is no clip; count it, unless the edge host did (`cause` is empty)."""
        if cause:
            self._lose(request, cause, reason)
        about, alert = record_path(self._folder, request.alert), request.alert
        lost = record_without_clip(alert, request.camera, request.session, request.first_pts_s, reason)
        with suppress(OSError):  # the disk is full, perhaps
            write_record(about, lost)
        for path in (partial(about), partial(video_path(self._folder, alert))):
            path.unlink(missing_ok=True)

    def _lose(self, request: ClipRequest, cause: str, reason: str) -> None:
        self._metrics.clips_lost.labels(request.camera, cause).inc()
        self._log.error("clip lost", camera=request.camera, alert=request.alert, cause=cause, reason=reason)


def _hosts(config: Config) -> Mapping[str, str]:
    """Return the edge host of each recorded camera that has one."""
    return {camera.id: camera.host for camera in config.cameras if camera.host and config.recording.enabled}
