"""The live view's messages, which the track worker publishes for the console.

In: one frame's tracks, and its preview as JPEG (empty where none was made).  Out: the multipart ZeroMQ message
[b"live", msgpack of LiveFrame, JPEG bytes], and back.  The network is not trusted: a message that does not decode, or
has impossible values, raises WireError.
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
MAX_MESSAGE_BYTES = MAX_JPEG_BYTES + (4 << 20)  # the largest part that a receiver must accept
_JPEG_START = b"\xff\xd8"

Side = Annotated[int, Meta(ge=1, le=65535)]


class LiveFrame(msgspec.Struct, frozen=True):
    """The tracks of one frame of one camera, in its pixels."""

    camera: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    session: Annotated[str, Meta(min_length=1, max_length=64)]
    seq: Annotated[int, Meta(ge=0)]
    pts_s: float
    received_utc_ns: Annotated[int, Meta(ge=0)]
    width: Side  # px of the frame; the preview may be smaller
    height: Side
    tracks: Annotated[list[Track], Meta(max_length=MAX_TRACKS)]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LiveFrame)


def encode(frame: LiveFrame, jpeg: bytes = b"") -> list[bytes]:
    """Return the message's parts."""
    return [TOPIC, _ENCODER.encode(frame), jpeg]


def decode(parts: Sequence[bytes]) -> tuple[LiveFrame, bytes]:
    """Return the frame and its preview (b"" where there is none).  Raise WireError."""
    if len(parts) != 3 or parts[0] != TOPIC:
        raise WireError(f"live message of {len(parts)} parts: expected {TOPIC.decode()}, frame, JPEG")
    jpeg = parts[2]
    check_preview(jpeg)
    try:
        frame = _DECODER.decode(parts[1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"live frame: {error}") from error
    for track in frame.tracks:
        if track.camera != frame.camera:
            raise WireError(f"live frame of camera {frame.camera!r} with a track of camera {track.camera[:64]!r}")
        if not all(isfinite(number) for number in _numbers(track)):
            raise WireError(f"live frame of camera {frame.camera!r}: numbers of track {track.id} must be finite")
    if not isfinite(frame.pts_s):
        raise WireError(f"live frame of camera {frame.camera!r}: pts_s must be finite")
    return frame, jpeg


def check_preview(jpeg: bytes) -> None:
    """Check a preview, or b"" for none.  Raise WireError."""
    if len(jpeg) > MAX_JPEG_BYTES:
        raise WireError(f"live preview of {len(jpeg)} bytes: must be at most {MAX_JPEG_BYTES}")
    if jpeg and not jpeg.startswith(_JPEG_START):
        raise WireError("live preview: must be a JPEG")


def _numbers(track: Track) -> Iterator[float]:
    yield from track.xyxy
    yield from track.velocity_px_s
    yield from track.evidence.values()
    yield from (track.score, track.first_seen.pts_s, track.last_seen.pts_s)
    for place in (track.bearing, track.position):
        yield from (number for number in (msgspec.structs.astuple(place) if place else ()) if number is not None)
