"""A demuxer's packets in; the same as plain bytes out, with what a file of them needs to know of their stream."""

import io
from typing import TYPE_CHECKING

import av
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.capture.source import CodedPacket, CodedStream

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # not generic at run time


class PacketTap:
    """Copies the packets of one open stream, from its first keyframe on."""

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._coded: CodedStream | None = None

    def coded(self, packet: VideoPacket) -> CodedPacket | None:
        """Return a copy of a packet that was decoded; None before a keyframe of known frame size."""
        if packet.is_keyframe:
            self._describe()
        if self._coded is None:
            return None
        unit_s = packet.time_base
        shown = packet.dts if packet.pts is None else packet.pts
        return CodedPacket(
            self._coded,
            bytes(packet),
            None if shown is None else float(shown * unit_s),
            None if packet.dts is None else float(packet.dts * unit_s),
            packet.is_keyframe,
        )

    def _describe(self) -> None:
        codec = self._stream.codec_context
        size_px, before = (codec.width, codec.height), self._coded
        if not all(size_px) or (before is not None and before.size_px == size_px):
            return
        # Parameter sets from outside the packets hold for the first frame size only; later ones are in the packets.
        has_parameters = bool(codec.extradata) and before is None
        self._coded = CodedStream(
            str(codec.codec.canonical_name),
            size_px,
            str(codec.pix_fmt or ""),
            _snapshot(self._stream) if has_parameters else None,
        )


def _snapshot(stream: VideoStream) -> VideoStream:
    """Return a stream with a copy of the codec's parameters, which no other thread changes."""
    holder = av.open(io.BytesIO(), "w", format="mp4")
    return holder.add_stream_from_template(stream, opaque=True)
