"""Pixels as JPEG, for a thin link between hosts.  Pure."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WireError
from pipeline.imaging.image_header import jpeg_sizes

QUALITY = 92  # lower quality loses small targets


def jpeg_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return the pixels (HxWx3 RGB or HxW) as a JPEG."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()


def pixels_of_jpeg(data: memoryview, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the decoded pixels, HxWx3 RGB or HxW, which must have this shape.

    Raise WireError, before any memory is taken for a larger image.
    """
    sizes = list(jpeg_sizes(data))
    if sizes != [(shape[1], shape[0])]:
        raise WireError(f"JPEG of {sizes[:2]} px (width, height): expected a frame of shape {shape}")
    mode = cv2.IMREAD_COLOR if len(shape) == 3 else cv2.IMREAD_GRAYSCALE
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape != shape:
        raise WireError(f"JPEG cannot be decoded: expected a frame of shape {shape}")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels, np.uint8)
