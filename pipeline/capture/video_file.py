"""A video file in; every frame out, with its own time.

A broken file is read as far as it can be decoded; then a SourceError names the file, the reason, and how far it got.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from av.error import FFmpegError

from pipeline.capture.decoding import (
    ASSUMED_FPS,
    Decoder,
    VideoPacket,
    nominal_fps,
)
from pipeline.capture.open_video import OpenVideo, choose_stream, open_container
from pipeline.capture.source import DecodedFrame, FramePacer, Receipt, unpaced
from pipeline.capture.wall_clock import utc_ns
from pipeline.errors import SourceError

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".avi", ".mov", ".m4v", ".ts", ".mts", ".m2ts"),
    *(".mpg", ".mpeg", ".webm", ".wmv", ".flv", ".h264", ".h265", ".hevc"),
)
MAX_SHORTFALL_S = 1.0  # declared lengths are not more exact
CATCH_UP_S = 1.0  # of decoding without a frame on time, before frames are skipped up to the next keyframe
MIN_CREATED_NS = 86_400 * 10**9  # a clock that was never set starts in 1904 or 1970


class VideoFile(OpenVideo):
    """A video file as a recording."""

    live = False

    def __init__(
        self, path: Path, fps: float | None = None, low_delay: bool = False, stream_index: int | None = None
    ) -> None:
        self._path = path
        try:
            container = open_container(str(path.absolute()), options={"protocol_whitelist": "file"})
        except FFmpegError as error:
            raise SourceError(
                f"{path}: cannot be read as a video ({error.strerror}); expected one of {' '.join(VIDEO_SUFFIXES)}"
            ) from None
        if container.format.name == "tty":  # which renders any text as video
            container.close()
            raise SourceError(f"{path}: contains no video; expected one of {' '.join(VIDEO_SUFFIXES)}")
        try:
            stream = choose_stream(container, stream_index)
        except ValueError as error:
            raise SourceError(f"{path}: {error}") from None
        super().__init__(str(path), container, stream)
        if low_delay:
            stream.thread_count = 1  # each further thread would delay by one frame
        else:
            stream.thread_type = "AUTO"
        self.fps = fps or nominal_fps(stream)
        # The header of an AVI also counts null frames.
        self.stated_count = (len(stream.index_entries) if container.format.name == "avi" else stream.frames) or None
        self.created_utc_ns = _created_utc_ns(stream.metadata | container.metadata)
        self._by_count = fps is not None
        self._decoder = Decoder(stream, self.fps, self._by_count)
        self._size_bytes = path.stat().st_size
        self._packets = 0
        self._first_dts: int | None = None
        self._first_pts: int | None = None
        self._read_to_s = 0.0  # end of the last packet, from the first one's time
        self._late_since_s: float | None = None
        self._skipping = False
        self._ended = False
        self._cut_off = False
        self._reasons: list[str] = []

    @property
    def length_s(self) -> float:
        """Return the end of the newest frame."""
        return self._decoder.next_s

    @property
    def count(self) -> int:
        """Return the frames so far, lost and skipped ones included."""
        return self._decoder.count

    @property
    def lost(self) -> int:
        """Return how many frames could not be decoded so far."""
        return self._decoder.lost

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield every frame; raise SourceError at the end of a broken file."""
        return self.paced(unpaced)

    def paced(self, pacer: FramePacer) -> Iterator[DecodedFrame]:
        """Yield the frames, each when the pacer lets it pass."""
        yield from self._steps(lambda: self._step(pacer))
        if self._ended and (reasons := self._errors()):
            of_all = f" of {self.stated_count}" if self.stated_count else ""
            raise SourceError(f"{self._path}: {', '.join(reasons)}; {self._decoder.decoded}{of_all} frames were read")

    def _step(self, pacer: FramePacer) -> list[DecodedFrame] | None:
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
            remaining = self._decoder.frames(None, None)
            self._decoder.finish()
            return remaining
        if not packet.size:  # in AVI: the frame before is repeated
            return []
        if packet.is_corrupt and packet.pos is not None and packet.pos + packet.size >= self._size_bytes:
            self._cut_off = True  # decoding half a packet would discard complete ones in the decoder's queue
            return []
        receipt = pacer(self._sent_s(packet))
        frames = [] if self._is_skipped(packet, receipt) else self._decoder.frames(packet, receipt)
        self._pass_on(packet)
        return frames

    def _sent_s(self, packet: VideoPacket) -> float:
        """Return when a camera would send this packet: its decoding time, in s from the start."""
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

    def _is_skipped(self, packet: VideoPacket, receipt: Receipt | None) -> bool:
        """Return whether the packet is not decoded: decoding is too slow to catch up before a later keyframe."""
        if self._skipping and packet.is_keyframe:
            self._decoder.restart()
            self._skipping, self._late_since_s = False, None
        if receipt is not None:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = time.monotonic()
        elif time.monotonic() - self._late_since_s > CATCH_UP_S:
            self._skipping = True
        if self._skipping:
            self._decoder.skip()
        return self._skipping

    def _errors(self) -> list[str]:
        decoder, reasons = self._decoder, list(self._reasons)
        stated_s = self._stated_length_s()
        if self._cut_off or self._index_reaches_beyond_end():
            reasons.append("is cut off")
        elif stated_s is not None and (end_s := max(decoder.next_s, self._read_to_s)) < stated_s - MAX_SHORTFALL_S:
            reasons.append(f"ends at {end_s:.1f} s of {stated_s:.1f} s")
        if decoder.bad_packets:  # a packet without a frame may be correct
            reasons.append(f"has frames that cannot be decoded ({decoder.lost or decoder.bad_packets})")
        if decoder.too_large:
            reasons.append(decoder.too_large)
        if decoder.damaged:
            reasons.append(f"has damaged frames ({decoder.damaged})")
        if not decoder.decoded and not reasons:
            reasons.append("contains no frame")
        return reasons

    def _index_reaches_beyond_end(self) -> bool:
        entries = self._stream.index_entries
        return len(entries) > 0 and entries[-1].pos + entries[-1].size > self._size_bytes

    def _stated_length_s(self) -> float | None:
        """Return None also if the file contains sound, which may be longer, or if times do not come from the file."""
        container = self._container
        if self._by_count or len(container.streams) != 1 or container.duration is None:
            return None
        # Matroska declares the time of the end, other formats the length.
        start = max(0, container.start_time or 0)
        return (container.duration - (start if start < container.duration else 0)) / 1e6


def _created_utc_ns(metadata: dict[str, str]) -> int | None:
    """Return when the recording began by its metadata; None if that is missing, implausible or without a time zone."""
    for key in ("com.apple.quicktime.creationdate", "creation_time"):
        try:
            created_ns = utc_ns(metadata[key])
        except (KeyError, ValueError):
            continue
        if created_ns >= MIN_CREATED_NS:
            return created_ns
    return None
