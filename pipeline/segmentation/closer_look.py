"""A closer look at what was found: each target is cut out, enlarged, and told apart by a network of its own.

The scale at which a whole frame is searched shows where something is, often too small to tell a drone from a bird or an
airplane.  In: a frame's pixels and its detections.  Out: crops for the classifier, and with its scores the detections
anew.  Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from model.metadata import CloserLook
from pipeline.types import Detections

MOST = 8  # targets of a frame that are looked at, the largest


def crops(pixels: NDArray[np.uint8], detections: Detections, how: CloserLook) -> NDArray[np.uint8]:
    """Of the first MOST detections: (N, crop_px, crop_px, 3).  pixels: HxWx3 RGB or HxW."""
    made = [cut_out(pixels, box, detections.band, how) for box in detections.xyxy[:MOST].tolist()]
    return np.stack(made) if made else np.zeros((0, how.crop_px, how.crop_px, 3), np.uint8)


def cut_out(
    pixels: NDArray[np.uint8], box: Sequence[float], band: str, how: CloserLook, margin: float = 1.0
) -> NDArray[np.uint8]:
    """A square around the middle of a box xyxy, reflected at the frame's edges; with more around it by `margin`."""
    x0, y0, x1, y1 = box
    side = max(how.context * max(x1 - x0, y1 - y0), how.least_px[band]) * margin
    size = round(how.crop_px * margin)
    finer = ceil(side / (2 * size))  # a large target is sampled this much finer, then averaged
    scale = finer * size / side
    # A pixel's centre lies at +0.5 in these coordinates, and at its index in OpenCV's.
    left, top = (finer * size / 2 - middle * scale + (scale - 1) / 2 for middle in ((x0 + x1) / 2, (y0 + y1) / 2))
    turn = np.array([[scale, 0, left], [0, scale, top]], np.float32)
    wide = (finer * size, finer * size)
    crop = cv2.warpAffine(pixels, turn, wide, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if finer > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    shown = np.repeat(crop[..., None], 3, axis=2) if crop.ndim == 2 else crop
    return np.asarray(shown, np.uint8)


def told_apart(detections: Detections, classes: tuple[str, ...], scores: Iterable[NDArray[np.float32]]) -> Detections:
    """With the classifier's classes; what it did not see keeps its scores."""
    known = np.zeros((len(detections), len(classes)), np.float32)
    for column, name in enumerate(detections.classes):
        known[:, classes.index(name)] = detections.class_scores[:, column]
    for row, seen in enumerate(scores):
        known[row] = seen
    return replace(detections, classes=classes, class_scores=known)
