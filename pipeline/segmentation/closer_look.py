"""A closer look at what was found: cut out of the frame at a finer scale, and judged by the network again.

The scale at which a whole frame is searched shows where something is, often too small to tell a drone from a bird or an
airplane.  In: a frame's pixels and its detections.  Out: crops for the network, and from its maps other class scores.
Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.types import Detections

SIDE_PX = 128  # of a crop, in pixels of the network's input
MOST = 4  # targets of a frame that are looked at again, the largest
FILLED = 0.25  # of a crop's side, by a target: a larger one needs no finer scale, and was learned at none
NEAR_PX = 16.0  # what lies further from a crop's middle, beyond its own size, is something else


@dataclass(frozen=True)
class Look:
    """A crop, and the detection that it shows."""

    row: int
    crop: NDArray[np.uint8]  # SIDE_PX x SIDE_PX x 3


def looks(pixels: NDArray[np.uint8], detections: Detections, searched: float, closer: float) -> list[Look]:
    """pixels: HxWx3 RGB or HxW; `searched`, `closer`: the scales, in network pixels per frame pixel."""
    found = []
    for row, (x0, y0, x1, y1) in enumerate(detections.xyxy[:MOST].tolist()):
        scale = min(closer, FILLED * SIDE_PX / max(x1 - x0, y1 - y0, 1.0))
        if scale > searched:
            x, y = detections.centroid[row].tolist()
            found.append(Look(row, _cut_out(pixels, x, y, scale)))
    return found


def _cut_out(pixels: NDArray[np.uint8], x: float, y: float, scale: float) -> NDArray[np.uint8]:
    """Around a point of the frame; beyond its edges it is reflected."""
    # A pixel's centre lies at +0.5 in these coordinates, and at its index in OpenCV's.
    left, top = SIDE_PX / 2 - x * scale + (scale - 1) / 2, SIDE_PX / 2 - y * scale + (scale - 1) / 2
    turn = np.array([[scale, 0, left], [0, scale, top]], np.float32)
    crop = cv2.warpAffine(pixels, turn, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    shown = np.repeat(crop[..., None], 3, axis=2) if crop.ndim == 2 else crop
    return np.asarray(shown, np.uint8)


def class_scores(maps: NDArray[np.float32], threshold: float) -> NDArray[np.float32] | None:
    """(classes,) of the target in the middle, from probabilities (classes, SIDE_PX, SIDE_PX); None: none is there."""
    binary = (maps.max(axis=0) > threshold).astype(np.uint8)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(binary, connectivity=8)
    if count < 2:
        return None
    apart_px = np.linalg.norm(centres[1:] - SIDE_PX / 2, axis=1) - np.sqrt(stats[1:, cv2.CC_STAT_AREA])
    nearest = int(apart_px.argmin())
    if apart_px[nearest] > NEAR_PX:
        return None
    scores: NDArray[np.float32] = maps[:, labels == nearest + 1].mean(axis=1)
    return scores


def told_apart(
    detections: Detections, seen: Sequence[Look], maps: Sequence[NDArray[np.float32]], threshold: float
) -> Detections:
    """With the class scores of the closer look, where it saw something."""
    scores = detections.class_scores.copy()
    for look, of_crop in zip(seen, maps, strict=True):
        found = class_scores(of_crop, threshold)
        if found is not None:
            scores[look.row] = found
    return replace(detections, class_scores=scores)
