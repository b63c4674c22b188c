"""The live view's messages: what the track worker publishes for the console.

In: one frame's tracks, and its picture as JPEG (empty where none was made).  Out: the multipart ZeroMQ message
[b"live", msgpack of LiveFrame, JPEG bytes], and back.  The network is not trusted: whatever does not decode, or holds
what could not be, is a WireError.
"""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline.errors import WireError
from pipeline.types import Track

TOPIC = b"live"
MAX_JPEG_BYTES = 8 << 20
MAX_TRACKS = 500
MAX_MESSAGE_BYTES = MAX_JPEG_BYTES + (4 << 20)  # the largest part that a receiver need accept
_JPEG_START = b"\xff\xd8"

Side = Annotated[int, Meta(ge=1, le=65535)]


class LiveFrame(msgspec.Struct, frozen=True):
    """The tracks of one frame of one camera, and what the picture beside it shows."""

    camera: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    session: Annotated[str, Meta(min_length=1, max_length=64)]
    seq: Annotated[int, Meta(ge=0)]
    pts_s: float
    received_utc_ns: Annotated[int, Meta(ge=0)]
    width: Side  # px of the frame, in which the boxes are; the JPEG may be smaller
    height: Side
    tracks: Annotated[list[Track], Meta(max_length=MAX_TRACKS)]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LiveFrame)


def encode(frame: LiveFrame, jpeg: bytes = b"") -> list[bytes]:
    return [TOPIC, _ENCODER.encode(frame), jpeg]


def decode(parts: Sequence[bytes]) -> tuple[LiveFrame, bytes]:
    """The frame and its picture (b"" where there is none).  Raises WireError."""
    if len(parts) != 3 or parts[0] != TOPIC:
        raise WireError(f"live message of {len(parts)} parts; allowed: {TOPIC.decode()}, frame, JPEG")
    jpeg = parts[2]
    check_picture(jpeg)
    try:
        frame = _DECODER.decode(parts[1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"live frame: {error}") from error
    for track in frame.tracks:
        if track.camera != frame.camera:
            raise WireError(f"live frame of {frame.camera!r} with a track of {track.camera[:64]!r}")
        if not all(isfinite(number) for number in _numbers(track)):
            raise WireError(f"live frame of {frame.camera!r}: track {track.id} holds a number that is not finite")
    if not isfinite(frame.pts_s):
        raise WireError(f"live frame of {frame.camera!r}: pts_s is not finite")
    return frame, jpeg


def check_picture(jpeg: bytes) -> None:
    """Of none, b"", too.  Raises WireError."""
    if len(jpeg) > MAX_JPEG_BYTES:
        raise WireError(f"live picture of {len(jpeg)} bytes; allowed: up to {MAX_JPEG_BYTES}")
    if jpeg and not jpeg.startswith(_JPEG_START):
        raise WireError("live picture is no JPEG")


def _numbers(track: Track) -> Iterator[float]:
    yield from track.xyxy
    yield from track.velocity_px_s
    yield from track.evidence.values()
    yield from (track.score, track.first_seen.pts_s, track.last_seen.pts_s)
