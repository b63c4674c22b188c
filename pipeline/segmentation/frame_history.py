"""The last fraction of a second of one camera, registered: grey frames with their times and camera positions.  Pure."""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.native import pixels as native
from model.native.library import is_available

MAX_AGE_S = 0.75
MIN_STEP_S = 0.045  # between kept frames: a fast camera must not hold more frames than lags can use
MAX_WIDTH_PX = 1920  # of a kept frame: wider ones are reduced, so that memory is bounded
MOTION_WIDTH_PX = 640  # of the image in which motion is looked for
BLUR_PX = 1.0  # of that image: reduces noise, as a matched filter for the smallest targets does
SMOOTH_STEPS = 256  # of a grey level, in that image
BLUR_REACH_PX = 2  # so near to the image's edge, blurring reflects what it does not see


@dataclass(frozen=True, eq=False)
class PastFrame:
    """A frame of the history.

    Attributes:
        pts_s: its presentation time.
        grey: uint8 (H, W), native resolution up to MAX_WIDTH_PX.
        smooth: uint16 (h, w) in steps of 1 / SMOOTH_STEPS grey level, blurred, at most MOTION_WIDTH_PX wide.
        position_px: of the background against the history's first frame, frame pixels.
        width_px: of the camera's frame.
        height_px: likewise.
    """

    pts_s: float
    grey: NDArray[np.uint8]
    smooth: NDArray[np.uint16]
    position_px: tuple[float, float]
    width_px: int
    height_px: int


class FrameHistory:
    """Frames of one camera and session, newest last, MAX_AGE_S long."""

    def __init__(self) -> None:
        self._kept: deque[PastFrame] = deque()
        self.newest: PastFrame | None = None

    def add(self, pixels: NDArray[np.uint8], pts_s: float, shift_px: tuple[float, float] | None) -> PastFrame:
        """Append a frame.

        Args:
            pixels: uint8, HxWx3 RGB or HxW.
            pts_s: presentation time; a step backwards clears the history.
            shift_px: of the background since the previous frame; None: unknown, which clears the history.
        """
        before, (height, width) = self.newest, pixels.shape[:2]
        if before is not None and (
            shift_px is None or pts_s <= before.pts_s or (before.width_px, before.height_px) != (width, height)
        ):
            self._kept.clear()
            before = None
        x, y = before.position_px if before else (0.0, 0.0)
        dx, dy = shift_px if before and shift_px else (0.0, 0.0)
        grey = grey_of(pixels)
        self.newest = PastFrame(pts_s, grey, _smooth(grey), (x + dx, y + dy), width, height)
        if not self._kept or pts_s - self._kept[-1].pts_s >= MIN_STEP_S:
            self._kept.append(self.newest)
        while pts_s - self._kept[0].pts_s > MAX_AGE_S:
            self._kept.popleft()
        return self.newest

    def at(self, lag_s: float) -> PastFrame | None:
        """Return the kept frame whose age is nearest to `lag_s`; None while the history is empty."""
        newest = self.newest
        if newest is None:
            return None
        if lag_s == 0:
            return newest
        return min(self._kept, key=lambda frame: abs(newest.pts_s - frame.pts_s - lag_s), default=newest)


def grey_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the frame as uint8 (H, W), at most MAX_WIDTH_PX wide."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    height, width = _size(pixels)
    if grey.shape != (height, width):
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(grey, np.uint8)


def _size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Return height and width of the kept frame."""
    height, width = pixels.shape[:2]
    factor = min(1.0, MAX_WIDTH_PX / width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _smooth(grey: NDArray[np.uint8]) -> NDArray[np.uint16]:
    height, width = grey.shape
    factor = min(1.0, MOTION_WIDTH_PX / width)
    if factor < 1:
        size = MOTION_WIDTH_PX, max(1, round(height * factor))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    kernel = np.asarray(cv2.getGaussianKernel(2 * BLUR_REACH_PX + 1, BLUR_PX, cv2.CV_32F), np.float32)
    return native.blurred(grey, kernel) if is_available() else reference_blurred(grey, kernel)


def reference_blurred(grey: NDArray[np.uint8], kernel: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the same as `native.blurred`, by OpenCV."""
    levels = np.asarray(cv2.sepFilter2D(grey, cv2.CV_32F, kernel, kernel), np.float32)
    return np.asarray(np.rint(levels * np.float32(SMOOTH_STEPS)), np.uint16)
