"""Which video stream of a container is read, and how its frames are turned upright: as players do both.

In: PyAV's streams and frames.  Out: the chosen stream, what to call it and the others, upright images.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from av.buffer import Buffer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
FILM_SHARE = 0.5  # of the longest stream's length: what is shorter may be a cover that is not marked as one


def choose(streams: Sequence[VideoStream], index: int | None = None) -> VideoStream | None:
    """The stream of that index in the container; None: the film, the default one before others, then the largest.

    Returns None where there are only covers.  Raises ValueError for an index that is not a video stream's.
    """
    if index is not None:
        chosen = next((stream for stream in streams if stream.index == index), None)
        if chosen is None:
            raise ValueError(f"stream {index}: must be one of {', '.join(map(describe, streams)) or 'none'}")
        return chosen
    longest_s = max((_length_s(stream) or 0.0 for stream in streams), default=0.0)

    def preference(stream: VideoStream) -> tuple[bool, bool, int]:
        length_s = _length_s(stream)
        is_film = stream.frames != 1 and (length_s is None or length_s >= FILM_SHARE * longest_s)
        return is_film, bool(stream.disposition & Disposition.default), stream.width * stream.height

    return max((stream for stream in streams if not stream.disposition & COVERS), key=preference, default=None)


def describe(stream: VideoStream) -> str:
    """`1 (h264, 320x256)`"""
    return f"{stream.index} ({stream.codec_context.name}, {stream.width}x{stream.height})"


def _length_s(stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    try:  # Matroska
        hours, minutes, seconds = map(float, stream.metadata["DURATION"].split(":"))
    except (KeyError, ValueError):
        return None
    return 3600 * hours + 60 * minutes + seconds


def upright(image: NDArray[Any], frame: VideoFrame) -> NDArray[Any]:
    """The image of a frame, turned and mirrored by quarters as its display matrix says."""
    try:
        matrix = cast("Mapping[str, Buffer]", frame.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return image
    except ValueError:  # PyAV does not know all kinds of side data (Exif), and lists none then
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
    # (x, y) is shown at (a x + c y, b x + d y), but for an offset.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    to_left, to_top = (c < 0, b < 0) if turned else (a < 0, d < 0)
    if turned:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: -1 if to_top else 1, :: -1 if to_left else 1])
