"""The messages of a camera's own video, between its capture worker and the console.

    console -- NEXT --> capture worker -- VideoPart, bytes --> console      over video-<camera>.sock (DEALER/ROUTER)

The console asks for each part when it can take it; so nothing queues.  The first part says what follows; a part with an
`ended` reason is the last one.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline.errors import WireError

NEXT = b"next"
MAX_PART_BYTES = 64 << 20
VIEWER_TIMEOUT_S = 10.0  # without a request
START_TIMEOUT_S = 2.0  # until the first part


class VideoPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """What comes with fragments of an MP4: of the first part the media type, and the session and its time of zero."""

    session: Annotated[str, Meta(max_length=64)] = ""
    mime: Annotated[str, Meta(max_length=100)] = ""
    zero_pts_s: float = 0.0
    ended: Annotated[str, Meta(max_length=100)] = ""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(VideoPart)


def encode_part(part: VideoPart, fragments: bytes = b"") -> list[bytes]:
    """Return a message's parts."""
    return [_ENCODER.encode(part), fragments]


def decode_part(message: Sequence[bytes]) -> tuple[VideoPart, bytes]:
    """Return what a message says, and its fragments.  Raise WireError."""
    if len(message) != 2:
        raise WireError(f"video message of {len(message)} parts: expected 2")
    try:
        return _DECODER.decode(message[0]), message[1]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"video part: {error}") from error
