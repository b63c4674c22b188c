"""One clip: packets in, a fragmented MP4 file out, with its record.

Packets are muxed as they are, never encoded again, except that raw video is compressed without loss (FFV1).  (MP4 puts
lengths in the place of H.264's and H.265's start codes; the NAL units between them stay the same, SEI included.)  The
file grows by a fragment a second, so that what was written before a kill is readable.
"""

import hashlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.codec.codec import find_best_pix_fmt_of_list
from av.error import FFmpegError
from av.packet import Packet

from pipeline.capture.packet_ring import TOLERANCE_S, TimedPacket
from pipeline.capture.source import CodedStream
from pipeline.store.clips import ClipRecord, partial, record_path, video_path, write_record
from pipeline.store.folders import sync_folder

RAW = "rawvideo"
UNIT_S = Fraction(1, 90_000)  # of the file's times
OPTIONS = {
    "movflags": "empty_moov+default_base_moof",
    "frag_duration": "1000000",  # µs
    "flush_packets": "1",
    "avoid_negative_ts": "disabled",
}
ERRORS = (OSError, FFmpegError, ValueError)
"""What writing raises: ValueError for a codec that MP4 cannot hold."""


class ClipFile:
    """A clip that is being written; ends with `finish` or `discard`.  All raise ERRORS."""

    def __init__(self, folder: Path, record: ClipRecord, stream: CodedStream) -> None:
        self.record = record
        self._folder, self._stream = folder, stream
        self._video, self._about = video_path(folder, record.alert), record_path(folder, record.alert)
        self._last_tick = -1
        self._container: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        try:
            write_record(partial(self._about), record)
            self._container = av.open(str(partial(self._video)), "w", format="mp4", options=OPTIONS)
            self._raw = RawEncoder(self._container, stream) if stream.codec == RAW else None
            self._output = self._raw.output if self._raw else copied(self._container, stream)
            self._output.time_base = UNIT_S
        except ERRORS:
            self.discard()
            raise

    def write(self, timed: TimedPacket) -> None:
        """Append a packet; those that are shown before the first keyframe cannot be decoded and are left out."""
        record, packet = self.record, timed.packet
        if record.first_pts_s is not None and timed.pts_s < record.first_pts_s:
            return
        shown = round((timed.pts_s - record.zero_pts_s) / UNIT_S)
        decoded = (
            self._last_tick + 1 if timed.decode_s is None else round((timed.decode_s - record.zero_pts_s) / UNIT_S)
        )
        decoded = max(decoded, self._last_tick + 1)  # whatever the camera's clock does
        self._last_tick = decoded
        if self._raw is not None:
            self._container.mux(self._raw.encoded(packet.data, max(shown, decoded)))
        else:
            copy = Packet(packet.data)
            copy.stream, copy.time_base = self._output, UNIT_S
            copy.pts, copy.dts, copy.is_keyframe = max(shown, decoded), decoded, packet.is_keyframe
            self._container.mux_one(copy)
        count(record, timed.pts_s)

    def finish(self, ended: str) -> ClipRecord:
        """Complete the file and its record, and give both their names."""
        try:
            if self._raw is not None:
                self._container.mux(self._raw.rest())
            self._container.close()
            self._container = None
            seal(self._folder, self.record, ended)
        except ERRORS:
            self.discard()
            raise
        return self.record

    def discard(self) -> None:
        """Remove what was written."""
        try:
            if self._container is not None:
                self._container.close()
        except ERRORS:  # the disk is full, perhaps
            pass
        finally:
            self._container = None
            for path in (partial(self._video), partial(self._about)):
                path.unlink(missing_ok=True)


class RawEncoder:
    """Compresses raw video without loss."""

    def __init__(self, container: Any, stream: CodedStream) -> None:
        formats = [offered.name for offered in av.Codec("ffv1", "w").video_formats or ()]
        best, loss = find_best_pix_fmt_of_list(formats, stream.pixel_format)
        if best is None or loss:
            raise ValueError(f"raw video of format {stream.pixel_format!r}: cannot be compressed without loss")
        self._decoder = cast("Any", av.CodecContext.create(RAW, "r"))
        self.output: Any = container.add_stream("ffv1", rate=25)
        self._decoder.width, self._decoder.height = stream.size_px
        self.output.width, self.output.height = stream.size_px
        self._decoder.pix_fmt, self.output.pix_fmt = stream.pixel_format, best.name
        self.output.codec_context.time_base = UNIT_S

    def encoded(self, data: bytes, tick: int) -> list[Any]:
        """Return the packets that a raw frame completes."""
        packets = []
        for frame in self._decoder.decode(Packet(data)):
            frame.pts, frame.time_base = tick, UNIT_S
            packets += self.output.encode(frame)
        return packets

    def rest(self) -> list[Any]:
        """Return the last packets."""
        return list(self.output.encode(None))


def copied(container: Any, stream: CodedStream) -> Any:
    """Return an output that takes the packets of a stream as they are."""
    width, height = stream.size_px
    if stream.parameters is None:  # PyAV takes them from the first packet, where the codec has any
        return container.add_mux_stream(stream.codec, width=width, height=height)
    output = container.add_stream_from_template(stream.parameters, opaque=True)
    output.width, output.height = width, height
    return output


def count(record: ClipRecord, pts_s: float) -> None:
    """Count a packet."""
    record.packets += 1
    record.first_pts_s = pts_s if record.first_pts_s is None else record.first_pts_s
    record.last_pts_s = max(pts_s, record.last_pts_s or pts_s)
    record.covers_first_detection |= abs(pts_s - record.first_detection_pts_s) < TOLERANCE_S


def seal(folder: Path, record: ClipRecord, ended: str, reason: str = "") -> None:
    """Write what is known of a complete file into its record, and give both their names.

    Raise OSError, also where the disk could not take all.
    """
    video, about = video_path(folder, record.alert), record_path(folder, record.alert)
    with partial(video).open("rb") as file:
        os.fsync(file.fileno())
        record.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        record.size_bytes = file.tell()
    record.ended = ended
    if not record.covers_first_detection:
        is_older = record.first_pts_s is None or record.first_detection_pts_s < record.first_pts_s
        reason = reason or (
            "the first detection is " + ("older than the packets in memory" if is_older else "not in it")
        )
    elif record.missed_packets:
        reason = reason or "packets are missing: the disk was too slow"
    record.reason = reason
    write_record(partial(about), record)
    partial(video).replace(video)
    partial(about).replace(about)
    sync_folder(folder)
