"""The types that sources share: a decoded frame, when its data was received, and what a source offers."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One decoded frame of a source, before it gets its reference within a session.

    Attributes:
        pixels: HxWx3 RGB, or HxW if the source is grey.
        number: 0-based frame number in this source; missing and undecodable frames keep their numbers.
        pts_s: presentation time in s from the start of this source; rises with every frame.
        received_mono_ns: when its packet arrived, before decoding; of a simulated camera, when it was due.
        received_utc_ns: the same moment in UTC.
        ntp_ns: the camera's own UTC, where it reports one.
        decode_ns: time spent on decoding and conversion to RGB.
        intact: False if data is missing from this frame or from one that it was predicted from.
        stamp_s: the time stamp of its packet (see `CodedPacket`); None without one.
    """

    pixels: NDArray[np.uint8]
    number: int
    pts_s: float
    received_mono_ns: int
    received_utc_ns: int
    ntp_ns: int | None
    decode_ns: int
    intact: bool = True
    stamp_s: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class CodedStream:
    """A stream of packets of one connection or file, with one frame size.

    Attributes:
        codec: FFmpeg's name.
        size_px: width and height.
        pixel_format: FFmpeg's name; matters for `rawvideo` only.
        parameters: PyAV's stream with the codec's parameter sets; None where they are in the packets.
    """

    codec: str
    size_px: tuple[int, int]
    pixel_format: str = ""
    parameters: Any = None


class CodedPacket(NamedTuple):
    """A packet as the source sent it; times in s of the stream's own clock, None if it has no time stamp."""

    stream: CodedStream
    data: bytes
    stamp_s: float | None  # presentation
    decode_stamp_s: float | None
    is_keyframe: bool


PacketSink = Callable[[CodedPacket], None]


class Source(Protocol):
    """An open camera or recording.

    Attributes:
        live: True if the newest frame matters, False if every frame does.
        fps: nominal frame rate; 0.0 if unknown.
        on_packet: called with each packet, in the thread that reads `frames`, before its frame is yielded.
    """

    live: bool
    fps: float
    on_packet: PacketSink | None

    @property
    def codec(self) -> str:
        """Return FFmpeg's name of the codec."""
        ...

    @property
    def lost(self) -> int:
        """Return how many frames could not be decoded so far."""
        ...

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield the frames, once only; end after the last one of a recording and after `close`.

        Raise SourceError when a live stream ends or stalls, and after the last decodable frame of a broken recording.
        """
        ...

    def close(self) -> None:
        """Close the source, from any thread; may wait for a read to finish."""
        ...


class Receipt(NamedTuple):
    """When a packet was received; `complete` is False if data may have been lost on its way."""

    mono_ns: int
    utc_ns: int
    ntp_ns: int | None = None
    complete: bool = True

    @classmethod
    def now(cls, ntp_ns: int | None = None, *, complete: bool = True) -> Self:
        """Return a receipt of this moment."""
        return cls(time.monotonic_ns(), time.time_ns(), ntp_ns, complete)

    @classmethod
    def at(cls, mono_ns: int) -> Self:
        """Return a receipt of a moment of the monotonic clock."""
        return cls(mono_ns, time.time_ns() - (time.monotonic_ns() - mono_ns))


FramePacer = Callable[[float], Receipt | None]
"""Called before a frame is decoded, with its time in s: waits until it is due; None if it is late and to be skipped."""


def unpaced(_pts_s: float) -> Receipt:
    """Let every frame pass at once."""
    return Receipt.now()


class Recording(Source, Protocol):
    """A source that can also be read at a given pace."""

    @property
    def length_s(self) -> float:
        """Return the end of the newest frame, skipped ones included: the time at which a next recording continues."""
        ...

    @property
    def count(self) -> int:
        """Return the frames up to the newest one, missing ones included: the next recording's first number."""
        ...

    def paced(self, pacer: FramePacer) -> Iterator[DecodedFrame]:
        """Yield the frames as `frames` does, each when the pacer lets it pass."""
        ...
