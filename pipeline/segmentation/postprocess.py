"""Post-processing: class probability maps -> Detections.  Pure.

The object map is the largest class probability of each pixel.  Its connected components above the threshold become
detections; each component's mean class probabilities are its class scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from model.metadata import Thresholds
from pipeline.types import Detections, Frame, Mask

MAX_DETECTIONS = 256  # the largest are kept: clutter must not cost unbounded time

Polygon = Sequence[tuple[float, float]]
Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class MapView:
    """Which part of a frame a probability map covers.

    Attributes:
        scale: frame pixels per map pixel, (x, y).
        region: x0, y0, x1, y1 of the covered part in frame pixels; None: the whole frame.
        ignore: mask polygons in frame pixels; detections whose centroid lies in one are dropped.
        core: x0, y0, x1, y1 of the part, frame pixels, outside of which centroids are dropped too; None: all.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    region: Region | None = None
    ignore: Sequence[Polygon] = ()
    core: Region | None = None


class _Component(NamedTuple):
    """A connected component of the object map, in map pixels (a pixel's centre lies at +0.5)."""

    mask: Mask
    score: float
    class_scores: NDArray[np.float32]
    centroid: tuple[float, float]
    area_px: int


def detect(
    probabilities: NDArray[np.float32],
    frame: Frame,
    view: MapView,
    classes: tuple[str, ...],
    thresholds: Thresholds,
    camera_shift_px: tuple[float, float] | None = None,
) -> Detections:
    """Return the detections of a frame, largest first.

    Args:
        probabilities: float32 (len(classes), h, w) in 0..1.
        frame: the frame that the maps belong to.
        view: which part of the frame they cover.
        classes: the network's classes.
        thresholds: the operating point.
        camera_shift_px: the camera's motion since the previous frame, handed on.
    """
    sx, sy = view.scale
    region = view.region or (0, 0, *frame.size_px)
    polygons = [np.asarray(polygon, np.float32) for polygon in view.ignore]
    x0, y0, x1, y1 = view.core or region

    def is_kept(component: _Component) -> bool:
        x, y = _centroid(component, view, region)
        is_inside = x0 <= x <= x1 and y0 <= y <= y1
        return component.score >= thresholds.min_score and is_inside and not is_masked((x, y), polygons)

    rows = [component for component in _components(probabilities, thresholds) if is_kept(component)]
    boxes = [_box(row.mask, thresholds.box_margin_px, view, region) for row in rows]
    return Detections(
        ref=frame.ref,
        band=frame.band,
        size_px=frame.size_px,
        classes=classes,
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        score=np.array([row.score for row in rows], np.float32),
        mask_score=np.array([row.score for row in rows], np.float32),
        motion_score=np.zeros(len(rows), np.float32),
        novelty=np.zeros(len(rows), np.float32),
        class_scores=np.array([row.class_scores for row in rows], np.float32).reshape(-1, len(classes)),
        area_px=np.array([row.area_px * sx * sy for row in rows], np.float32),
        centroid=np.array([_centroid(row, view, region) for row in rows], np.float32).reshape(-1, 2),
        masks=[row.mask.moved(round(region[0] / sx), round(region[1] / sy)) for row in rows],
        mask_scale=view.scale,
        camera_shift_px=camera_shift_px,
    )


def _centroid(component: _Component, view: MapView, region: Region) -> tuple[float, float]:
    """Return a component's centroid in frame pixels."""
    (x, y), (sx, sy) = component.centroid, view.scale
    return region[0] + x * sx, region[1] + y * sy


def _box(mask: Mask, margin_px: float, view: MapView, region: Region) -> tuple[float, float, float, float]:
    """Return a mask's box (x0, y0, x1, y1) in frame pixels, with a margin in map pixels, within the region."""
    (left, top, right, bottom), (sx, sy) = region, view.scale
    return (
        max(float(left), left + (mask.left - margin_px) * sx),
        max(float(top), top + (mask.top - margin_px) * sy),
        min(float(right), left + (mask.left + mask.width + margin_px) * sx),
        min(float(bottom), top + (mask.top + mask.height + margin_px) * sy),
    )


def _components(probabilities: NDArray[np.float32], thresholds: Thresholds) -> list[_Component]:
    """Return the connected components above the threshold, largest first, MAX_DETECTIONS at most."""
    min_area_px = thresholds.continue_area_ratio * thresholds.min_area_px
    found = []
    for window in _windows(probabilities, thresholds.threshold):
        inside = probabilities[:, *window]
        objects = inside.max(axis=0)
        binary = (objects > thresholds.threshold).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
        large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= min_area_px).tolist()
        found += [(window, inside, objects, labels, stats[index], index) for index in large if index > 0]
    found.sort(key=lambda component: -int(component[4][cv2.CC_STAT_AREA]))
    return [_measure(*component) for component in found[:MAX_DETECTIONS]]


def _windows(probabilities: NDArray[np.float32], threshold: float) -> list[tuple[slice, slice]]:
    """Return the parts of the map, rows and columns, outside which nothing is above the threshold.

    No component reaches from one to another.  They begin at even pixels, since OpenCV numbers components by blocks of
    two by two: among those of one size, their order is that of the whole map.
    """
    is_above = (probabilities.max(axis=2) > threshold).any(axis=0)
    edges = np.flatnonzero(np.diff(is_above, prepend=False, append=False)).reshape(
        -1, 2
    )  # first row, row past the last
    windows = []
    for top, bottom in edges.tolist():
        columns = np.flatnonzero((probabilities[:, top:bottom].max(axis=1) > threshold).any(axis=0))
        windows.append(np.s_[top & ~1 : bottom, int(columns[0]) & ~1 : int(columns[-1]) + 1])
    return windows


def _measure(
    map_window: tuple[slice, slice],
    probabilities: NDArray[np.float32],
    objects: NDArray[np.float32],
    labels: NDArray[np.int32],
    stats: NDArray[np.int32],
    index: int,
) -> _Component:
    """Return the component of an index; all arrays are those of the window."""
    left, top, width, height, area = (int(value) for value in stats)
    window = np.s_[top : top + height, left : left + width]
    left, top = left + map_window[1].start, top + map_window[0].start
    mask = labels[window] == index
    weights = objects[window] * mask
    total = float(weights.sum())
    x = float((weights.sum(axis=0) * (np.arange(width) + 0.5)).sum()) / total + left
    y = float((weights.sum(axis=1) * (np.arange(height) + 0.5)).sum()) / total + top
    class_scores = probabilities[:, *window][:, mask].mean(axis=1)
    return _Component(Mask.pack(left, top, mask), total / area, class_scores, (x, y), area)


def is_masked(point: tuple[float, float], polygons: Sequence[NDArray[np.float32]]) -> bool:
    """Return whether a point lies in one of the polygons."""
    return any(cv2.pointPolygonTest(polygon, point, False) >= 0 for polygon in polygons)
