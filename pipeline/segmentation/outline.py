"""The outline of a small target around a point, by its contrast against what surrounds it.  Pure.

Motion candidates are points.  Whatever made one stands out from the median of its surroundings: the connected pixels
around the point whose contrast is at least half of the point's own are its mask, and their bounds its box.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

REACH_PX = 20  # of the window in each direction, at least ...
REACH_RATIO = 1.5  # ... and in lengths of what is expected
PEAK_REACH_PX = 2  # the strongest contrast this near to the point is what made it
MIN_CONTRAST = 3.0  # grey levels ...
MIN_CONTRAST_RATIO = 3.0  # ... and of the surroundings' deviation: below it nothing stands out
LEVEL = 0.35  # of the strongest contrast
MAX_AREA_SHARE = 0.35  # of the window: a larger component is the background's own structure


@dataclass(frozen=True, eq=False)
class Outline:
    """A mask, bool (h, w), whose top left pixel lies at (left, top) of the image."""

    left: int
    top: int
    mask: NDArray[np.bool_]

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """Return the box (4,)."""
        height, width = self.mask.shape
        return np.array([self.left, self.top, self.left + width, self.top + height], np.float32)

    @property
    def centroid(self) -> tuple[float, float]:
        """Return the centre of mass; a pixel's centre lies at +0.5."""
        rows, columns = np.nonzero(self.mask)
        return self.left + float(columns.mean()) + 0.5, self.top + float(rows.mean()) + 0.5


def outline(grey: NDArray[np.uint8], x: float, y: float, length_px: float = 0.0) -> Outline | None:
    """Return the outline of what stands out at a point; None where nothing does, or where it has no end.

    Args:
        grey: uint8 (H, W).
        x: of the point, pixels.
        y: likewise.
        length_px: of what is expected there, roughly; 0: small.
    """
    height, width = grey.shape
    reach = max(REACH_PX, round(REACH_RATIO * length_px))
    column, row = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
    left, top = max(0, column - reach), max(0, row - reach)
    window = grey[top : row + reach + 1, left : column + reach + 1]
    middle = float(np.median(window))
    contrast = cv2.GaussianBlur(window.astype(np.float32) - middle, (3, 3), 0.6)
    deviation = float(np.median(np.abs(contrast)))
    first_row, first_column = max(0, row - top - PEAK_REACH_PX), max(0, column - left - PEAK_REACH_PX)
    near = contrast[first_row : row - top + PEAK_REACH_PX + 1, first_column : column - left + PEAK_REACH_PX + 1]
    strongest = max(float(near.max()), -float(near.min()))
    if strongest < max(MIN_CONTRAST, MIN_CONTRAST_RATIO * deviation):
        return None
    signed = contrast if float(near.max()) == strongest else -contrast
    _, labels, stats, _ = cv2.connectedComponentsWithStats((signed >= LEVEL * strongest).astype(np.uint8))
    peak_row, peak_column = np.unravel_index(int((near if signed is contrast else -near).argmax()), near.shape)
    label = int(labels[first_row + int(peak_row), first_column + int(peak_column)])
    x0, y0, w, h, area = (int(value) for value in stats[label])
    touches = w >= 2 * reach or h >= 2 * reach
    if label == 0 or touches or area > MAX_AREA_SHARE * window.size:
        return None
    return Outline(left + x0, top + y0, labels[y0 : y0 + h, x0 : x0 + w] == label)


def point_outline(grey: NDArray[np.uint8], x: float, y: float) -> Outline:
    """Return three by three pixels inside the image: the outline of a point where nothing stands out."""
    height, width = grey.shape
    left, top = (max(0, min(int(value) - 1, side - 3)) for value, side in ((x, width), (y, height)))
    return Outline(left, top, np.ones((min(3, height), min(3, width)), np.bool_))
