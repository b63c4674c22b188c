"""A video file in, every picture out, with its own time.

What is broken is read as far as it can be decoded; then a SourceError says which file, why, and how far.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from av.error import FFmpegError

from pipeline.capture.decoding import (
    ASSUMED_FPS,
    Decoder,
    OpenVideo,
    VideoPacket,
    choose_stream,
    nominal_fps,
    open_container,
)
from pipeline.capture.source import DecodedFrame, FramePacer, Receipt, unpaced
from pipeline.capture.wall_clock import utc_ns
from pipeline.errors import SourceError

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".avi", ".mov", ".m4v", ".ts", ".mts", ".m2ts"),
    *(".mpg", ".mpeg", ".webm", ".wmv", ".flv", ".h264", ".h265", ".hevc"),
)
SHORTFALL_S = 1.0  # a stated length is not more exact
PATIENCE_S = 1.0  # of catching up by decoding alone
FIRST_CREDIBLE_NS = 86_400 * 10**9  # a clock that was never set says 1904 or 1970


class VideoFile(OpenVideo):
    live = False

    def __init__(
        self, path: Path, fps: float | None = None, one_by_one: bool = False, stream_index: int | None = None
    ) -> None:
        self._path = path
        try:
            container = open_container(str(path.absolute()), options={"protocol_whitelist": "file"})
        except FFmpegError as error:
            raise SourceError(
                f"{path}: cannot be read as a video ({error.strerror}); allowed: {' '.join(VIDEO_SUFFIXES)}"
            ) from None
        if container.format.name == "tty":  # which draws any text as a picture
            container.close()
            raise SourceError(f"{path}: holds no video; allowed: {' '.join(VIDEO_SUFFIXES)}")
        try:
            stream = choose_stream(container, stream_index)
        except ValueError as error:
            raise SourceError(f"{path}: {error}") from None
        super().__init__(str(path), container, stream)
        if one_by_one:
            stream.thread_count = 1  # several would hold back as many pictures
        else:
            stream.thread_type = "AUTO"
        self.fps = fps or nominal_fps(stream)
        # AVI's header counts null frames too.
        self.stated_count = (len(stream.index_entries) if container.format.name == "avi" else stream.frames) or None
        self.created_utc_ns = _created_utc_ns(stream.metadata | container.metadata)
        self._by_count = fps is not None
        self._decoder = Decoder(stream, self.fps, self._by_count)
        self._size_bytes = path.stat().st_size
        self._packets = 0
        self._first_dts: int | None = None
        self._first_pts: int | None = None
        self._read_to_s = 0.0  # the end of the last packet, from the first one's time on
        self._late_since_s: float | None = None
        self._lost = False
        self._ended = False
        self._cut_off = False
        self._reasons: list[str] = []

    @property
    def length_s(self) -> float:
        return self._decoder.next_s

    @property
    def count(self) -> int:
        return self._decoder.count

    @property
    def lost(self) -> int:
        return self._decoder.lost

    def frames(self) -> Iterator[DecodedFrame]:
        return self.paced(unpaced)

    def paced(self, gate: FramePacer) -> Iterator[DecodedFrame]:
        yield from self._steps(lambda: self._step(gate))
        if self._ended and (reasons := self._faults()):
            of_all = f" of {self.stated_count}" if self.stated_count else ""
            raise SourceError(f"{self._path}: {', '.join(reasons)}; {self._decoder.decoded}{of_all} frames were read")

    def _step(self, gate: FramePacer) -> list[DecodedFrame] | None:
        if self._ended:
            return None
        packet: VideoPacket | None
        try:
            packet = next(self._demuxed, None)
        except FFmpegError as error:
            self._reasons.append(f"reading failed ({error.strerror})")
            packet = None
        if packet is None or (not packet.size and packet.dts is None):
            self._ended = True
            rest = self._decoder.pictures(None, None)
            self._decoder.finish()
            return rest
        if not packet.size:  # AVI's way of saying that the picture before it stays
            return []
        if packet.is_corrupt and packet.pos is not None and packet.pos + packet.size >= self._size_bytes:
            self._cut_off = True  # decoding half a packet would cost the whole ones that wait for their turn
            return []
        receipt = gate(self._sent_s(packet))
        if self._left_out(packet, receipt):
            return []
        return self._decoder.pictures(packet, receipt)

    def _sent_s(self, packet: VideoPacket) -> float:
        """When a camera would send this packet: decoding time, s from the start."""
        self._packets += 1
        if packet.pts is not None and packet.time_base is not None:
            self._first_pts = packet.pts if self._first_pts is None else self._first_pts
            end = packet.pts + (packet.duration or 0) - self._first_pts
            self._read_to_s = max(self._read_to_s, float(end * packet.time_base))
        if self._by_count or packet.dts is None:
            return (self._packets - 1) / (self.fps or ASSUMED_FPS)
        if self._first_dts is None:
            self._first_dts = packet.dts
        return float((packet.dts - self._first_dts) * packet.time_base)

    def _left_out(self, packet: VideoPacket, receipt: Receipt | None) -> bool:
        """Whether even decoding this is too slow, and only a later keyframe can catch up."""
        if self._lost and packet.is_keyframe:
            self._decoder.restart()
            self._lost, self._late_since_s = False, None
        if receipt is not None:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = time.monotonic()
        elif time.monotonic() - self._late_since_s > PATIENCE_S:
            self._lost = True
        if self._lost:
            self._decoder.leave_out()
        return self._lost

    def _faults(self) -> list[str]:
        decoder, reasons = self._decoder, list(self._reasons)
        stated_s = self._stated_length_s()
        if self._cut_off or self._index_reaches_beyond_end():
            reasons.append("is cut off")
        elif stated_s is not None and (end_s := max(decoder.next_s, self._read_to_s)) < stated_s - SHORTFALL_S:
            reasons.append(f"ends at {end_s:.1f} s of {stated_s:.1f} s")
        if decoder.bad_packets:  # that nothing came of a packet may be as it should
            reasons.append(f"has frames that cannot be decoded ({decoder.lost or decoder.bad_packets})")
        if decoder.too_large:
            reasons.append(decoder.too_large)
        if decoder.damaged:
            reasons.append(f"has damaged frames ({decoder.damaged})")
        if not decoder.decoded and not reasons:
            reasons.append("holds no frame")
        return reasons

    def _index_reaches_beyond_end(self) -> bool:
        entries = self._stream.index_entries
        return len(entries) > 0 and entries[-1].pos + entries[-1].size > self._size_bytes

    def _stated_length_s(self) -> float | None:
        """None also where sound, which may be longer, shares the file, and where the times are not the file's own."""
        container = self._container
        if self._by_count or len(container.streams) != 1 or container.duration is None:
            return None
        # Matroska states the time of the end, others the length.
        start = max(0, container.start_time or 0)
        return (container.duration - (start if start < container.duration else 0)) / 1e6


def _created_utc_ns(metadata: dict[str, str]) -> int | None:
    """When the recording began, as the file says it; None also where it says nothing sensible, or no time zone."""
    for key in ("com.apple.quicktime.creationdate", "creation_time"):
        try:
            created_ns = utc_ns(metadata[key])
        except (KeyError, ValueError):
            continue
        if created_ns >= FIRST_CREDIBLE_NS:
            return created_ns
    return None
