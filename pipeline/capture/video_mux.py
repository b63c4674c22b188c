"""Packets of H.264 in, fragments of an MP4 out, for a browser's Media Source Extensions; nothing is encoded again."""

from typing import Any

import av
from av.packet import Packet

from pipeline.capture.clip_file import UNIT_S, copied
from pipeline.capture.packet_ring import TimedPacket
from pipeline.capture.source import CodedStream

CODEC = "h264"
OPTIONS = {
    "movflags": "empty_moov+default_base_moof+frag_every_frame",
    "flush_packets": "1",
    "avoid_negative_ts": "disabled",
}


class VideoMux:
    """A stream from a keyframe on, whose time is zero.  All raise `clip_file.ERRORS`."""

    def __init__(self, stream: CodedStream, zero_pts_s: float) -> None:
        self.stream = stream
        self.zero_pts_s = zero_pts_s
        self._parts: list[bytes] = []
        self._last_tick = -1
        self._container: Any = av.open(self, "w", format="mp4", options=OPTIONS)
        self._output = copied(self._container, stream)
        self._output.time_base = UNIT_S

    def write(self, data: bytes) -> int:
        """Take what the muxer writes: see `take`."""
        self._parts.append(bytes(data))
        return len(data)

    def add(self, timed: TimedPacket) -> None:
        """Append a packet; those that are shown before the first keyframe cannot be decoded and are left out."""
        if timed.pts_s < self.zero_pts_s:
            return
        shown = round((timed.pts_s - self.zero_pts_s) / UNIT_S)
        stamp_s = timed.pts_s if timed.decode_s is None else timed.decode_s
        decoded = max(round((stamp_s - self.zero_pts_s) / UNIT_S), self._last_tick + 1)
        self._last_tick = decoded
        copy = Packet(timed.packet.data)
        copy.stream, copy.time_base = self._output, UNIT_S
        copy.pts, copy.dts, copy.is_keyframe = max(shown, decoded), decoded, timed.packet.is_keyframe
        self._container.mux_one(copy)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def close(self) -> None:
        """End the stream."""
        self._container.close()


def media_type(head: bytes) -> str:
    """Return the media type of a file that begins with these bytes, or an empty text where they do not say it."""
    at = head.find(b"avcC") + 4
    if at < 4 or len(head) < at + 4:
        return ""
    return f'video/mp4; codecs="avc1.{head[at + 1 : at + 4].hex()}"'
