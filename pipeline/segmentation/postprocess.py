"""Probability maps -> Detections.  Pure.

The object map is the largest class probability of each pixel: one mask for finding, whatever it is.  Its connected
components above the threshold are the targets; what they are is said by their class scores.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model.metadata import Thresholds
from pipeline.types import Band, Detections, FrameRef, Mask

MAX_DETECTIONS = 256  # the strongest are kept: clutter must not cost unbounded time


def detect(
    probabilities: NDArray[np.float32],
    ref: FrameRef,
    band: Band,
    size_px: tuple[int, int],
    classes: tuple[str, ...],
    decision: Thresholds,
    scale: tuple[float, float],
    ignore: Sequence[Sequence[tuple[float, float]]] = (),
    camera_shift_px: tuple[float, float] | None = None,
    searched: tuple[int, int, int, int] | None = None,
) -> Detections:
    """probabilities: float32 (len(classes), h, w) in 0..1; `scale`: (x, y) frame pixels per map pixel.

    `ignore`: polygons in frame pixels; a target whose centroid lies in one is not reported.
    `searched`: x0, y0, x1, y1 of the part of the frame that the maps show; None: all of it.
    """
    objects = probabilities.max(axis=0)
    binary = (objects > decision.threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    least_px = decision.continue_area_ratio * decision.min_area_px
    found = [index for index in range(1, count) if stats[index, cv2.CC_STAT_AREA] >= least_px]
    found.sort(key=lambda index: (-int(stats[index, cv2.CC_STAT_AREA]), index))
    measured = [_measure(probabilities, objects, labels, stats[index], index) for index in found[:MAX_DETECTIONS]]
    rows = [row for row in measured if row[1] >= decision.min_score]
    sx, sy = scale
    left, top, right, bottom = searched or (0, 0, *size_px)
    polygons = [np.asarray(polygon, np.float32) for polygon in ignore]
    rows = [row for row in rows if not _ignored((left + row[3][0] * sx, top + row[3][1] * sy), polygons)]
    margin = decision.box_margin_px

    def box(mask: Mask) -> tuple[float, float, float, float]:
        return (
            max(float(left), left + (mask.left - margin) * sx),
            max(float(top), top + (mask.top - margin) * sy),
            min(float(right), left + (mask.left + mask.width + margin) * sx),
            min(float(bottom), top + (mask.top + mask.height + margin) * sy),
        )

    return Detections(
        ref=ref,
        band=band,
        size_px=size_px,
        classes=classes,
        xyxy=np.array([box(row[0]) for row in rows], np.float32).reshape(-1, 4),
        score=np.array([row[1] for row in rows], np.float32),
        class_scores=np.array([row[2] for row in rows], np.float32).reshape(-1, len(classes)),
        area_px=np.array([row[4] * sx * sy for row in rows], np.float32),
        centroid=np.array([(left + row[3][0] * sx, top + row[3][1] * sy) for row in rows], np.float32).reshape(-1, 2),
        masks=[row[0].moved(round(left / sx), round(top / sy)) for row in rows],
        mask_scale=scale,
        camera_shift_px=camera_shift_px,
    )


def _measure(
    probabilities: NDArray[np.float32],
    objects: NDArray[np.float32],
    labels: NDArray[np.int32],
    stats: NDArray[np.int32],
    index: int,
) -> tuple[Mask, float, NDArray[np.float32], tuple[float, float], int]:
    """Mask, score, class scores, centroid (map pixels, a pixel's centre at +0.5) and area of one component."""
    left, top, width, height, area = (int(value) for value in stats)
    window = np.s_[top : top + height, left : left + width]
    mask = labels[window] == index
    weights = objects[window] * mask
    total = float(weights.sum())
    x = float((weights.sum(axis=0) * (np.arange(width) + 0.5)).sum()) / total + left
    y = float((weights.sum(axis=1) * (np.arange(height) + 0.5)).sum()) / total + top
    class_scores = probabilities[:, *window][:, mask].mean(axis=1)
    return Mask.pack(left, top, mask), total / area, class_scores, (x, y), area


def _ignored(point: tuple[float, float], polygons: Sequence[NDArray[np.float32]]) -> bool:
    return any(cv2.pointPolygonTest(polygon, point, False) >= 0 for polygon in polygons)
