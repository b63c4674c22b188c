"""Pixels as JPEG, for a thin link between hosts.  Pure."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WireError

QUALITY = 92  # small targets are what is searched for: less loses them
_STARTS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers of a frame's header (ITU-T T.81, table B.1)
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def jpeg_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """pixels: HxWx3 RGB or HxW."""
    shown = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    _, encoded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()


def pixels_of_jpeg(data: memoryview, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """HxWx3 RGB or HxW, of that shape.  Raises WireError, before it takes memory for more than that."""
    sizes = list(_sizes(data))
    if sizes != [tuple(shape[:2])]:
        raise WireError(f"a JPEG of {sizes[:2]} for a frame of shape {shape}")
    how = cv2.IMREAD_COLOR if len(shape) == 3 else cv2.IMREAD_GRAYSCALE
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape != shape:
        raise WireError(f"a JPEG that is broken, for a frame of shape {shape}")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels, np.uint8)


def _sizes(data: memoryview) -> Iterator[tuple[int, int]]:
    """Height and width of every frame header before the first scan (ITU-T T.81, B.1.1)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            return
        if marker in _STARTS:
            yield int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 if marker in _ALONE else 1 if marker == 0xFF else 2 + length
