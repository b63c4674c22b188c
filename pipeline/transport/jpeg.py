"""Pixels as JPEG, for a thin link between hosts.  Pure."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WireError
from pipeline.imaging.image_header import jpeg_sizes

QUALITY = 92  # small targets are what is searched for: less loses them


def jpeg_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """pixels: HxWx3 RGB or HxW."""
    shown = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    _, encoded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()


def pixels_of_jpeg(data: memoryview, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """HxWx3 RGB or HxW, of that shape.  Raises WireError, before it takes memory for more than that."""
    sizes = list(jpeg_sizes(data))
    if sizes != [(shape[1], shape[0])]:
        raise WireError(f"a JPEG of {sizes[:2]} px (width, height) for a frame of shape {shape}")
    how = cv2.IMREAD_COLOR if len(shape) == 3 else cv2.IMREAD_GRAYSCALE
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape != shape:
        raise WireError(f"a JPEG that is broken, for a frame of shape {shape}")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels, np.uint8)
