"""Draw the zones of a camera: polygons and lines with their names; an arrow shows in which direction a line is crossed.

In: a frame's pixels, and points in frame pixels.  Out: a new image, uint8 (H, W, 3) RGB.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Point
from pipeline.imaging.overlay import DARK, Rgb

COLOUR: Rgb = (80, 227, 194)
ARROW = 0.15  # of a line's length, at least ...
ARROW_PX = 12  # ... this
_FONT = cv2.FontFace("sans")


def draw_zones(pixels: NDArray[np.uint8], zones: Mapping[str, Sequence[Point]], scale: int = 1) -> NDArray[np.uint8]:
    """Draw zones on a copy of `pixels` (HxWx3 RGB or HxW), enlarged `scale` times: lines where they have two points."""
    colours = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2)
    size = (colours.shape[1] * scale, colours.shape[0] * scale)
    image = np.ascontiguousarray(cv2.resize(colours, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    width_px = max(1, round(image.shape[0] / 400))
    placed = {name: np.array(points) * scale for name, points in zones.items()}
    for corners in placed.values():
        for colour, line_px in ((DARK, width_px + 2), (COLOUR, width_px)):
            cv2.polylines(image, [np.rint(corners).astype(np.int32)], len(corners) > 2, colour, line_px, cv2.LINE_AA)
            if len(corners) == 2:
                _arrow(image, corners, colour, line_px)
    for name, corners in placed.items():
        _write(image, name, corners.mean(axis=0) if len(corners) > 2 else corners[0])
    return image


def _arrow(image: NDArray[np.uint8], line: NDArray[np.float64], colour: Rgb, line_px: int) -> None:
    """Draw an arrow across the middle of a line, from its left to its right."""
    along, middle = line[1] - line[0], line.mean(axis=0)
    length_px = max(1e-9, float(np.hypot(*along)))
    across = np.array((-along[1], along[0])) / length_px * max(ARROW_PX, ARROW * length_px) / 2
    start, end = (np.rint(point).astype(int).tolist() for point in (middle - across, middle + across))
    cv2.arrowedLine(image, start, end, colour, line_px, cv2.LINE_AA, tipLength=0.35)


def _write(image: NDArray[np.uint8], name: str, at: NDArray[np.float64]) -> None:
    height_px = max(11, round(image.shape[0] / 32))
    x, y = (int(np.clip(place + height_px, 0, side - 1)) for place, side in zip(at, image.shape[1::-1], strict=True))
    for dx, dy, colour in ((1, 1, DARK), (0, 0, COLOUR)):
        cv2.putText(image, name, (x + dx, y + dy), colour, _FONT, height_px, 600)
