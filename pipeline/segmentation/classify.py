"""A closer look at what was found: each target is cut out, enlarged, and told apart by a network of its own.

The scale at which a whole frame is searched shows where something is, often too small to tell a drone from a bird or an
airplane.  In: a frame's pixels and its detections.  Out: crops for the classifier, and with its scores the detections
anew.  What was looked at a moment ago keeps its names.  Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from model.metadata import ClassifierConfig
from pipeline.types import Detections

MOST = 4  # targets of a frame of a video that are looked at, the largest of those that are due
INITIAL_CLASSIFICATIONS = 15  # at a new target, frame after frame: whether it is alerted on depends on them; ...
AGAIN_S = 0.1  # ... then its names are kept for so long: evidence is gathered over seconds
REACH = 1.0  # box lengths; what is found so near to an earlier target is taken for the same


def crops(
    pixels: NDArray[np.uint8], detections: Detections, rows: Sequence[int], how: ClassifierConfig
) -> NDArray[np.uint8]:
    """Of these detections: (N, crop_px, crop_px, 3).  pixels: HxWx3 RGB or HxW."""
    made = [cut_out(pixels, detections.xyxy[row].tolist(), detections.band, how) for row in rows]
    return np.stack(made) if made else np.zeros((0, how.crop_px, how.crop_px, 3), np.uint8)


def cut_out(
    pixels: NDArray[np.uint8], box: Sequence[float], band: str, how: ClassifierConfig, margin: float = 1.0
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


@dataclass
class CachedScores:
    """A target as it was last seen, and named."""

    centre: NDArray[np.float32]  # x, y
    length: np.float32  # of its box, the longer side
    scores: NDArray[np.float32]
    looks: int
    looked_s: float  # when that was


class ClassifierCache:
    """What is remembered of one camera's targets, so that not every one is looked at in every frame."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._looked: list[CachedScores] = []

    def due(self, detections: Detections, large: NDArray[np.bool_]) -> list[int]:
        """Rows to look at now, `most` of them at most, and none that is not large."""
        now_s, known = detections.ref.pts_s, self._known(detections)
        return [
            row
            for row, looked in enumerate(known)
            if large[row]
            and (looked is None or looked.looks < INITIAL_CLASSIFICATIONS or not 0 <= now_s - looked.looked_s < AGAIN_S)
        ][: self._most]

    def with_class_scores(
        self, detections: Detections, classes: tuple[str, ...], seen: Mapping[int, NDArray[np.float32]]
    ) -> Detections:
        """With the classifier's scores: `seen` now, by row, or as remembered; zero where neither."""
        scores = np.zeros((len(detections), len(classes)), np.float32)
        kept = []
        for row, (looked, centre, length) in enumerate(zip(self._known(detections), *_places(detections), strict=True)):
            if row in seen:
                looks = looked.looks + 1 if looked else 1
                kept.append(CachedScores(centre, length, seen[row], looks, detections.ref.pts_s))
            elif looked is not None:
                kept.append(replace(looked, centre=centre, length=length))
            else:
                continue
            scores[row] = kept[-1].scores
        self._looked = kept
        return replace(detections, classes=classes, class_scores=scores)

    def _known(self, detections: Detections) -> list[CachedScores | None]:
        """For each row the nearest of what was seen in the frame before, if it is near."""
        if not self._looked or not len(detections):
            return [None] * len(detections)
        centres, _ = _places(detections)
        before = np.stack([looked.centre for looked in self._looked])
        lengths = np.array([looked.length for looked in self._looked])
        apart = np.abs(centres[:, None] - before).max(axis=2) / lengths
        nearest = apart.argmin(axis=1).tolist()
        return [self._looked[which] if apart[row, which] <= REACH else None for row, which in enumerate(nearest)]


def _places(detections: Detections) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres (N, 2) of the boxes, and the longer side of each (N)."""
    boxes = detections.xyxy
    return (boxes[:, :2] + boxes[:, 2:]) / np.float32(2), (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
