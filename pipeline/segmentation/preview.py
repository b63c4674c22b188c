"""JPEG previews of frames, for people."""

import cv2
from cv2.typing import MatLike

from pipeline.types import Frame

PREVIEW_WIDTH_PX = 1280
JPEG_QUALITY = 82


def jpeg_preview(frame: Frame) -> bytes:
    """Return the frame as a JPEG, at most PREVIEW_WIDTH_PX wide."""
    pixels: MatLike = frame.pixels
    if frame.size_px[0] > PREVIEW_WIDTH_PX:
        height = round(pixels.shape[0] * PREVIEW_WIDTH_PX / pixels.shape[1])
        pixels = cv2.resize(pixels, (PREVIEW_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()
