"""Frames -> how far the whole picture moved since the one before.  Pure.

Phase correlation (Kuglin & Hines, 1975) of small grey pictures.  Its peak is now and then a false one, or that of a
large target before a plain sky; so it is believed only where most of the picture fits better than as it lay before.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH_PX = 160  # of the small picture; a shift is then known to about a fifth of one of its pixels
MIN_RESPONSE = 0.08  # below this peak the pictures do not match: a scene cut, or nothing to hold on to
BETTER = 0.9  # of the difference that is left elsewhere
NEAR_PX = 1.0  # small pixels; so near to each other the pictures do not tell one place from another
MAX_SHIFT = 0.2  # of the picture's width, until the reference is renewed


class CameraMotion:
    """One a camera and session.

    Each picture is held against a reference that is kept for as long as the view overlaps it, so that the small bias of
    the estimate does not add up to a drift.
    """

    def __init__(self) -> None:
        self._reference: NDArray[np.float32] | None = None
        self._window: NDArray[np.float32] | None = None
        self._position = (0.0, 0.0)  # of the newest picture against the reference, small pixels

    def update(self, pixels: NDArray[np.uint8]) -> tuple[float, float] | None:
        """The shift (x, y) in pixels of `pixels`, or None where it is unknown (first frame, cut, no texture)."""
        height, width = pixels.shape[:2]
        factor = width / WIDTH_PX
        small = cv2.resize(pixels, (WIDTH_PX, max(8, round(height / factor))), interpolation=cv2.INTER_AREA)
        grey = (cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small).astype(np.float32)
        reference, before = self._reference, self._position
        if self._window is None or self._window.shape != grey.shape:
            self._window = cv2.createHanningWindow(grey.shape[::-1], cv2.CV_32F).astype(np.float32)
            reference = None
        if reference is None:
            self._renew(grey)
            return None
        # Windowed here, since OpenCV would multiply its input in place, again and again.
        found, response = cv2.phaseCorrelate(reference * self._window, grey * self._window)
        if response < MIN_RESPONSE:
            self._renew(grey)
            return None
        x, y = self._position = (found[0], found[1]) if believable(reference, grey, found, before) else before
        if max(abs(x), abs(y)) > MAX_SHIFT * WIDTH_PX:
            self._renew(grey)
        return (x - before[0]) * factor, (y - before[1]) * factor

    def _renew(self, grey: NDArray[np.float32]) -> None:
        self._reference, self._position = grey, (0.0, 0.0)


def believable(
    reference: NDArray[np.float32], grey: NDArray[np.float32], found: Sequence[float], before: tuple[float, float]
) -> bool:
    """Whether the picture lies better on the reference there than where it lay before, and than unmoved."""
    others = [one for one in (before, (0.0, 0.0)) if max(abs(found[0] - one[0]), abs(found[1] - one[1])) > NEAR_PX]
    there = residual(reference, grey, found) if others else 0.0
    return all(there < BETTER * residual(reference, grey, other) for other in others)


def residual(reference: NDArray[np.float32], grey: NDArray[np.float32], position: Sequence[float]) -> float:
    """The median difference, in grey levels, of two small pictures where they overlap, in whole pixels."""
    (x, y), (height, width) = map(round, position), grey.shape
    now = grey[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    then = reference[max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
    return float(np.median(np.abs(now - then))) if now.size else np.inf
