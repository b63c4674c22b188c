"""Frames -> how far the whole picture moved since the one before.  Pure.

Phase correlation (Kuglin & Hines, 1975) of small grey pictures: cheap, and blind to small moving targets.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH_PX = 160  # of the small picture; a shift is then known to about a fifth of one of its pixels
MIN_RESPONSE = 0.08  # below this peak the pictures do not match: a scene cut, or nothing to hold on to


class CameraMotion:
    """One a camera and session."""

    def __init__(self) -> None:
        self._previous: NDArray[np.float32] | None = None
        self._window: NDArray[np.float32] | None = None

    def update(self, pixels: NDArray[np.uint8]) -> tuple[float, float] | None:
        """The shift (x, y) in pixels of `pixels`, or None where it is unknown (first frame, cut, no texture)."""
        height, width = pixels.shape[:2]
        factor = width / WIDTH_PX
        small = cv2.resize(pixels, (WIDTH_PX, max(8, round(height / factor))), interpolation=cv2.INTER_AREA)
        grey = (cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small).astype(np.float32)
        previous, self._previous = self._previous, grey
        if previous is None or previous.shape != grey.shape:
            self._window = cv2.createHanningWindow(grey.shape[::-1], cv2.CV_32F).astype(np.float32)
            return None
        (dx, dy), response = cv2.phaseCorrelate(previous, grey, self._window)
        if response < MIN_RESPONSE:
            return None
        return dx * factor, dy * factor
