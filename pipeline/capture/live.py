"""Live cameras: RTSP, HTTP, RTP by an SDP file, or a V4L2 device in; frames out, with receipts of their packets.

A stream that ends, stalls or gives no frame raises SourceError.  No message contains a user, a password or a path.
"""

import errno
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from av.container import InputContainer
from av.error import ExitError, FFmpegError, HTTPForbiddenError, HTTPUnauthorizedError
from av.error import TimeoutError as NetworkTimeout

from pipeline.capture.decoding import (
    Decoder,
    LossLog,
    VideoPacket,
    nominal_fps,
    quiet_log,
)
from pipeline.capture.hwaccel import hardware
from pipeline.capture.open_video import OpenVideo, choose_stream, open_container
from pipeline.capture.recordings import split_stream
from pipeline.capture.source import DecodedFrame, Receipt
from pipeline.config.camera import Camera
from pipeline.config.uri import network_address
from pipeline.errors import CredentialsError, SourceError

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 2.0  # FFmpeg tries twice: a stalled camera is noticed after up to 4 s
FRAME_TIMEOUT_S = 20.0  # longer than cameras wait between keyframes
V4L2_OPTIONS = {"format": "input_format", "size": "video_size", "fps": "framerate"}  # of a camera's URI -> FFmpeg's
LOW_LATENCY = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "32", "analyzeduration": "0"}


def open_rtsp(camera: Camera) -> "LiveVideo":
    """Open an RTSP camera.  Raise SourceError or CredentialsError."""
    quiet_log()
    options = LOW_LATENCY | {"rtsp_transport": camera.transport, "allowed_media_types": "video"}
    # TCP never reorders packets, but without a queue FFmpeg does not report missing ones.
    if camera.transport == "tcp":
        options["reorder_queue_size"] = "2"
    container = _open(camera, camera.uri, None, options)
    return LiveVideo(camera, container)


def open_http(camera: Camera) -> "LiveVideo":
    """Open a camera that sends JPEGs over HTTP: their only times are those of their arrival."""
    quiet_log()
    return LiveVideo(
        camera, _open(camera, camera.uri, None, {"fflags": "nobuffer", "use_wallclock_as_timestamps": "1"})
    )


def open_sdp(camera: Camera) -> "LiveVideo":
    """Open RTP, unicast or multicast, by a session description file."""
    quiet_log()
    place, stream_index = split_stream(camera.uri.partition(":")[2])
    if not Path(place).is_file():
        raise SourceError(f"{_named(camera)}: {place} does not exist; must be a session description (.sdp)")
    return LiveVideo(
        camera, _open(camera, place, "sdp", LOW_LATENCY | {"protocol_whitelist": "file,udp,rtp"}), stream_index
    )


def open_v4l2(camera: Camera) -> "LiveVideo":
    """Open `v4l2:/dev/video0?format=gray16le&size=640x512&fps=30`; parameters default to the device's settings."""
    quiet_log()
    device, _, query = camera.uri.partition(":")[2].partition("?")
    options = {"fflags": "nobuffer"}
    for name, value in parse_qsl(query, keep_blank_values=True):
        options[V4L2_OPTIONS[name]] = value
    if not Path(device).exists():
        found = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none on this host"
        raise SourceError(f"{_named(camera)}: there is no device {device}; devices found: {found}")
    return LiveVideo(camera, _open(camera, device, "v4l2", options))


class LiveVideo(OpenVideo):
    """An open live stream."""

    live = True

    def __init__(self, camera: Camera, container: InputContainer, stream_index: int | None = None) -> None:
        self._name = _named(camera)
        try:
            stream = choose_stream(container, _offered(container, camera) if camera.is_networked else stream_index)
        except ValueError as error:
            raise SourceError(f"{self._name}: {error}") from None
        super().__init__(self._name, container, stream)
        stream.thread_count = 1  # each further thread would delay by one frame
        self.fps = nominal_fps(stream)
        self._keyframe_seen = False
        self._lost_before = False  # data was lost while the packet before was read
        self._last_frame_s = time.monotonic()

    @property
    def lost(self) -> int:
        """Return how many packets could not be decoded so far."""
        return self._decoder.lost

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield frames; raise SourceError when the stream ends or stalls."""
        self._last_frame_s = time.monotonic()
        self._losses = LossLog()  # in the thread that reads
        self._decoder = Decoder(self._stream, self.fps, losses=self._losses)
        try:
            yield from self._steps(self._step)
        finally:
            self._losses.close()

    def _step(self) -> list[DecodedFrame]:
        packet = self._read()
        if isinstance(packet, SourceError):
            raise packet
        lost_before, self._lost_before = self._lost_before, self._losses.take()
        # FFmpeg finds the end of a packet at the start of the next one: it may report a loss with the packet before.
        receipt = Receipt.now(_camera_utc_ns(packet), complete=not (self._lost_before or lost_before))
        self._keyframe_seen = self._keyframe_seen or packet.is_keyframe
        # Before the first keyframe some decoders return garbage.
        frames = self._decoder.frames(packet, receipt) if self._keyframe_seen else []
        self._pass_on(packet)
        if self._decoder.too_large:
            raise SourceError(f"{self._name}: {self._decoder.too_large}")
        if frames:
            self._last_frame_s = time.monotonic()
        elif time.monotonic() - self._last_frame_s > FRAME_TIMEOUT_S:
            raise SourceError(f"{self._name}: data, but no frame for {FRAME_TIMEOUT_S:.0f} s")
        return frames

    def _read(self) -> VideoPacket | SourceError:
        """Return errors, so that they are not raised in the context of FFmpeg's, which contains the address."""
        try:
            packet = next(self._demuxed, None)
        except (ExitError, NetworkTimeout):
            return SourceError(f"{self._name}: no data for {2 * READ_TIMEOUT_S:.0f} s")
        except FFmpegError as error:
            return SourceError(f"{self._name}: reading failed ({error.strerror})")
        if packet is None or not packet.size:  # FFmpeg reports a lost connection as end of file
            return SourceError(f"{self._name}: the camera closed the stream")
        return packet


def _offered(container: InputContainer, camera: Camera) -> int | None:
    """Return the stream of `?stream=N` where the camera offers several; otherwise the query is the camera's own."""
    requested = re.search(r"[?&]stream=(\d+)(?:&|$)", camera.uri)
    offered = [stream.index for stream in container.streams.video]
    return int(requested[1]) if requested and len(offered) > 1 and int(requested[1]) in offered else None


def _open(camera: Camera, place: str, layout: str | None, options: dict[str, str]) -> InputContainer:
    started_s = time.monotonic()
    try:
        return open_container(
            place,
            format=layout,
            options=options,
            timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S),
            hwaccel=hardware(camera.decode),
        )
    except FFmpegError as error:
        cause = _error(camera, error, time.monotonic() - started_s)
    raise cause  # outside the context of FFmpeg's exception, which contains the address


def _error(camera: Camera, error: FFmpegError, elapsed_s: float) -> SourceError:
    name = _named(camera)
    if isinstance(error, HTTPUnauthorizedError | HTTPForbiddenError):
        return CredentialsError(f"{name}: the camera refuses the user or the password")
    if error.errno == errno.EPROTONOSUPPORT:
        other = {"tcp": "udp", "udp": "tcp"}[camera.transport]
        return SourceError(f"{name}: the camera does not offer transport {camera.transport!r}; must be {other!r}")
    if elapsed_s >= OPEN_TIMEOUT_S or isinstance(error, ExitError | NetworkTimeout):
        return SourceError(f"{name}: no answer within {OPEN_TIMEOUT_S:.0f} s")
    return SourceError(f"{name}: cannot be opened ({error.strerror})")


def _named(camera: Camera) -> str:
    """Return camera id and host, without the path: it may contain a password, or part of one with a slash in it."""
    name = f"camera {camera.id}"
    address = network_address(camera.uri)
    return f"{name} at {address.netloc}" if address and camera.is_networked else name


def _camera_utc_ns(packet: VideoPacket) -> int | None:
    """Return the camera's UTC time, which FFmpeg derives from RTCP sender reports, in microseconds."""
    if not packet.has_sidedata("prft"):
        return None
    return int(struct.unpack_from("<q", bytes(packet.get_sidedata("prft")))[0]) * 1000
