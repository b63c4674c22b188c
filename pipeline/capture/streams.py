"""Choose the video stream of a container, and rotate its frames upright, as players do.

In: PyAV's streams and frames.  Out: the chosen stream, descriptions of streams, upright images.
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
MIN_LENGTH_RATIO = 0.5  # to the longest stream; a shorter one may be an unmarked cover image


def choose(streams: Sequence[VideoStream], index: int | None = None) -> VideoStream | None:
    """Return the stream of that index, or by default the main one: marked as default, otherwise the largest.

    Return None if there are only cover images.  Raise ValueError for an index that is not of a video stream.
    """
    if index is not None:
        chosen = next((stream for stream in streams if stream.index == index), None)
        if chosen is None:
            raise ValueError(f"stream {index}: must be one of {', '.join(map(describe, streams)) or 'none'}")
        return chosen
    longest_s = max((_length_s(stream) or 0.0 for stream in streams), default=0.0)

    def preference(stream: VideoStream) -> tuple[bool, bool, int]:
        length_s = _length_s(stream)
        is_main = stream.frames != 1 and (length_s is None or length_s >= MIN_LENGTH_RATIO * longest_s)
        return is_main, bool(stream.disposition & Disposition.default), stream.width * stream.height

    return max((stream for stream in streams if not stream.disposition & COVERS), key=preference, default=None)


def describe(stream: VideoStream) -> str:
    """Return `1 (h264, 320x256)`: index, codec and frame size."""
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
    """Return the image of a frame, rotated by quarter turns and mirrored according to its display matrix."""
    try:
        matrix = cast("Mapping[str, Buffer]", frame.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return image
    except ValueError:  # PyAV lists no side data where it does not know one (Exif)
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
    # (x, y) is displayed at (a x + c y, b x + d y) plus an offset.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    flip_x, flip_y = (c < 0, b < 0) if transposed else (a < 0, d < 0)
    if transposed:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
