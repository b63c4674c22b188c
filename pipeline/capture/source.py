"""What a source gives: decoded pictures, each with the moment at which it was received.

Nothing enters here; these are the types that `sources` and its parts share.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture."""

    pixels: NDArray[np.uint8]  # HxWx3 RGB; HxW if the source is grey
    number: int  # of the frame in this source, 0-based; that of a missing or undecodable frame stays free
    pts_s: float  # presentation time, s from the start of this source; rises with every picture
    received_mono_ns: int  # when its packet arrived, before decoding; of a pretended camera: when it was due
    received_utc_ns: int
    ntp_ns: int | None  # the camera's own UTC, where it tells
    decode_ns: int  # time spent decoding, conversion to RGB included
    intact: bool = True  # False: data is missing from it, or from one that it was decoded from


class Source(Protocol):
    """A camera or a recording, opened."""

    live: bool  # the newest picture matters; otherwise every picture does
    fps: float  # nominal; 0.0: unknown

    @property
    def codec(self) -> str:
        """FFmpeg's name for how its pictures are coded."""
        ...

    @property
    def lost(self) -> int:
        """Frames so far that cannot be decoded."""
        ...

    def pictures(self) -> Iterator[Picture]:
        """Once only.  Ends with a recording and after `close`.

        Raises SourceError when a live stream ends or stalls, and after the last picture of a broken recording that can
        be decoded.
        """
        ...

    def close(self) -> None:
        """From any thread; may wait for a read to end."""
        ...


class Receipt(NamedTuple):
    """When something was received."""

    mono_ns: int
    utc_ns: int
    ntp_ns: int | None = None
    whole: bool = True  # False: something was lost on the way, perhaps of this

    @classmethod
    def now(cls, ntp_ns: int | None = None, *, whole: bool = True) -> Self:
        return cls(time.monotonic_ns(), time.time_ns(), ntp_ns, whole)

    @classmethod
    def at(cls, mono_ns: int) -> Self:
        return cls(mono_ns, time.time_ns() - (time.monotonic_ns() - mono_ns))


FramePacer = Callable[[float], Receipt | None]
"""Asked before a picture is decoded, with its time (s): waits until it is due.  None: it is too late, leave it out."""


def ungated(_pts_s: float) -> Receipt:
    return Receipt.now()


class Recording(Source, Protocol):
    """A source that can also be read at a given pace."""

    @property
    def length_s(self) -> float:
        """Up to the end of the newest picture, those left out included: where a next recording would go on."""
        ...

    @property
    def count(self) -> int:
        """Frames up to the newest picture, those missing included: the number with which a next recording goes on."""
        ...

    def paced(self, gate: FramePacer) -> Iterator[Picture]: ...
