"""Second-stage classification: a classifier labels each detection's crop, enlarged.  Pure.

The scale at which the network processes whole frames shows where a target is, often too small to distinguish a drone
from a bird or an airplane.  In: a frame's pixels and its detections.  Out: crops for the classifier, and detections
with its class scores.  Scores of a target that was classified a moment ago are reused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from model.metadata import ClassifierConfig
from pipeline.types import Detections

MAX_CLASSIFIED = 4  # detections of a video frame that are classified, the largest of those that are due
INITIAL_CLASSIFICATIONS = 15  # of a new target, frame after frame: whether it raises an alert depends on them
RECLASSIFY_AFTER_S = 0.1  # later scores are reused for this long: evidence is accumulated over seconds
MATCH_DISTANCE = 1.0  # in box lengths: a detection this near to an earlier one is the same target


def crops(
    pixels: NDArray[np.uint8], detections: Detections, rows: Sequence[int], config: ClassifierConfig
) -> NDArray[np.uint8]:
    """Return crops of these detections, uint8 (N, crop_px, crop_px, 3).

    Args:
        pixels: HxWx3 RGB or HxW.
        detections: the frame's detections.
        rows: which of them.
        config: the classifier's crop geometry.
    """
    made = [cut_out(pixels, detections.xyxy[row].tolist(), detections.band, config) for row in rows]
    return np.stack(made) if made else np.zeros((0, config.crop_px, config.crop_px, 3), np.uint8)


def cut_out(
    pixels: NDArray[np.uint8], box: Sequence[float], band: str, config: ClassifierConfig, margin: float = 1.0
) -> NDArray[np.uint8]:
    """Return a square crop centred on a box xyxy, reflected at the frame's edges.

    `margin` multiplies both the covered area's side and the crop's.
    """
    x0, y0, x1, y1 = box
    side = max(config.context * max(x1 - x0, y1 - y0), config.least_px[band]) * margin
    size = round(config.crop_px * margin)
    oversampling = ceil(side / (2 * size))  # a large target is sampled finer, then averaged
    scale = oversampling * size / side
    # A pixel's centre lies at +0.5 in these coordinates, and at its index in OpenCV's.
    left, top = (
        oversampling * size / 2 - middle * scale + (scale - 1) / 2 for middle in ((x0 + x1) / 2, (y0 + y1) / 2)
    )
    transform = np.array([[scale, 0, left], [0, scale, top]], np.float32)
    sampled_size = (oversampling * size, oversampling * size)
    crop = cv2.warpAffine(pixels, transform, sampled_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if oversampling > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    rgb = np.repeat(crop[..., None], 3, axis=2) if crop.ndim == 2 else crop
    return np.asarray(rgb, np.uint8)


@dataclass
class CachedScores:
    """A target's last class scores, and where it was last detected."""

    centre: NDArray[np.float32]  # x, y
    length: np.float32  # of its box, the longer side
    scores: NDArray[np.float32]
    classifications: int
    classified_s: float


class ClassifierCache:
    """Class scores of one camera's targets, so that not every target is classified in every frame."""

    def __init__(self, max_classified: int) -> None:
        self._max_classified = max_classified
        self._cached: list[CachedScores] = []

    def due(self, detections: Detections, large: NDArray[np.bool_]) -> list[int]:
        """Return the rows to classify now: large ones, `max_classified` of them at most."""
        now_s, known = detections.ref.pts_s, self._known(detections)
        return [
            row
            for row, cached in enumerate(known)
            if large[row]
            and (
                cached is None
                or cached.classifications < INITIAL_CLASSIFICATIONS
                or not 0 <= now_s - cached.classified_s < RECLASSIFY_AFTER_S
            )
        ][: self._max_classified]

    def with_class_scores(
        self, detections: Detections, classes: tuple[str, ...], classified: Mapping[int, NDArray[np.float32]]
    ) -> Detections:
        """Return the detections with the classifier's scores: new ones by row, else cached ones, else zero."""
        scores = np.zeros((len(detections), len(classes)), np.float32)
        kept = []
        for row, (cached, centre, length) in enumerate(zip(self._known(detections), *_places(detections), strict=True)):
            if row in classified:
                count = cached.classifications + 1 if cached else 1
                kept.append(CachedScores(centre, length, classified[row], count, detections.ref.pts_s))
            elif cached is not None:
                kept.append(replace(cached, centre=centre, length=length))
            else:
                continue
            scores[row] = kept[-1].scores
        self._cached = kept
        return replace(detections, classes=classes, class_scores=scores)

    def _known(self, detections: Detections) -> list[CachedScores | None]:
        """Return for each row the nearest target of the previous frame, where it is near enough."""
        if not self._cached or not len(detections):
            return [None] * len(detections)
        centres, _ = _places(detections)
        previous = np.stack([cached.centre for cached in self._cached])
        lengths = np.array([cached.length for cached in self._cached])
        distances = np.abs(centres[:, None] - previous).max(axis=2) / lengths
        nearest = distances.argmin(axis=1).tolist()
        return [
            self._cached[index] if distances[row, index] <= MATCH_DISTANCE else None
            for row, index in enumerate(nearest)
        ]


def _places(detections: Detections) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the centres (N, 2) of the boxes, and the longer side of each (N)."""
    boxes = detections.xyxy
    return (boxes[:, :2] + boxes[:, 2:]) / np.float32(2), (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
