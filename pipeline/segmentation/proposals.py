"""Proposals: mask components, motion candidates and expected targets of a frame, as rows of one Detections.  Pure.

Masks and motion fail in different places: what hovers needs the mask, what is tiny or strange needs motion.  A motion
candidate inside a mask's box adds its score to that row; any other becomes a row of its own.  Where a recent target has
neither, its predicted place becomes a row, so that it is judged.  Of the rows without a mask, those that are
kept get the outline of what stands out there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.segmentation.motion import Candidate
from pipeline.segmentation.outline import Outline, outline, point_outline
from pipeline.segmentation.postprocess import MapView, Region, is_masked
from pipeline.types import Band, Detections, Mask

POINT_PX = 3.0  # side of the box of a point of unknown size
AGREEING_IOU = 0.2  # of an outline and a mask of the same target
JOIN_PX = 2.0  # a candidate this near to a box belongs to it
FORGET_S = 0.4  # a target that was not detected for this long is no longer expected
REMEMBER_S = 1.0  # a mask score is kept this long, while the network processes other places ...
FRESH_S = 0.15  # ... as it is for this long ...
REMEMBERED_SCORE = 0.5  # ... and then at most this: whether the target is still there is for the judge to say
RECENT_SCORE = 0.5  # of a detection that is expected again
NEAR = 1.0  # in box lengths: a detection this near to where a target is expected is that target
ON_TARGET = 0.5  # likewise, motion: farther beside it may be noise, which the judge would reject in the target's place
SPEED_GAIN = 0.3  # exponential smoothing of an expected target's speed


@dataclass
class _Expected:
    xy: NDArray[np.float64]
    velocity_px_s: NDArray[np.float64]  # against the background
    length_px: float
    seen_s: float
    mask_score: float = 0.0  # when it was last inside what the network processed
    class_scores: NDArray[np.float32] | None = None  # likewise, the network's own
    scored_s: float = -math.inf


@dataclass(frozen=True)
class Coverage:
    """Which parts of a frame the network processed.

    Attributes:
        parts: x0, y0, x1, y1, frame pixels.
        near_px: length from which on a target is near: only the reduced frame shows it.
        reduced: whether that was processed.
    """

    parts: Sequence[Region]
    near_px: float = math.inf
    reduced: bool = False

    def includes(self, xy: NDArray[np.float64], length_px: float) -> bool:
        """Return whether a target of this length would have been seen there."""
        if length_px >= self.near_px:
            return self.reduced
        return any(x0 <= xy[0] <= x1 and y0 <= xy[1] <= y1 for x0, y0, x1, y1 in self.parts)


class ExpectedTargets:
    """Where one camera's recent targets are expected in the next frame."""

    def __init__(self) -> None:
        self._targets: list[_Expected] = []
        self._last_s = 0.0

    def predict(self, pts_s: float, shift_px: tuple[float, float] | None) -> NDArray[np.float32]:
        """Move on to a frame and return the expected boxes (N, 4), frame pixels.

        Where the camera's motion is unknown (None), they are expected where they were: the camera may follow them.
        """
        elapsed_s, self._last_s = pts_s - self._last_s, pts_s
        self._targets = [target for target in self._targets if 0 < pts_s - target.seen_s <= FORGET_S]
        for target in self._targets:
            if shift_px is None:
                target.velocity_px_s = np.zeros(2)
            else:
                target.xy = target.xy + target.velocity_px_s * elapsed_s + np.array(shift_px)
        half = [np.full(2, target.length_px / 2) for target in self._targets]
        boxes = [np.concatenate([t.xy - h, t.xy + h]) for t, h in zip(self._targets, half, strict=True)]
        return np.array(boxes, np.float32).reshape(-1, 4)

    @property
    def centres(self) -> NDArray[np.float32]:
        """Return where they were last expected (N, 2), frame pixels."""
        return np.array([target.xy for target in self._targets], np.float32).reshape(-1, 2)

    def with_remembered_masks(self, proposals: Detections, coverage: Coverage) -> Detections:
        """Return the proposals with the last mask score of each expected target outside what was processed now.

        Args:
            proposals: of the frame for which `predict` was called.
            coverage: what the network processed of it.
        """
        mask_score, class_scores = proposals.mask_score.copy(), proposals.class_scores.copy()
        centres = (proposals.xyxy[:, :2] + proposals.xyxy[:, 2:]) / 2
        for target in self._targets:
            rows = np.flatnonzero(np.abs(centres - target.xy).max(axis=1) <= NEAR * target.length_px)
            best = max(rows, key=lambda row: float(proposals.mask_score[row]), default=None)
            if best is not None and proposals.mask_score[best] > 0:
                target.mask_score, target.class_scores = float(proposals.mask_score[best]), proposals.class_scores[best]
                target.scored_s = proposals.ref.pts_s
            elif coverage.includes(target.xy, target.length_px):
                target.mask_score = 0.0
            elif len(rows) and target.mask_score > 0 and proposals.ref.pts_s - target.scored_s <= REMEMBER_S:
                distance = np.abs(centres[rows] - target.xy).max(axis=1)
                row = rows[np.lexsort((distance, -proposals.motion_score[rows]))[0]]  # what moves, else what is nearest
                is_old = proposals.ref.pts_s - target.scored_s > FRESH_S
                mask_score[row] = min(target.mask_score, REMEMBERED_SCORE) if is_old else target.mask_score
                class_scores[row] = target.class_scores
        return replace(proposals, mask_score=mask_score, class_scores=class_scores)

    def update(self, detections: Detections) -> None:
        """Learn from a frame's scored detections, after `predict` for the same frame."""
        pts_s = detections.ref.pts_s
        for row in np.flatnonzero(detections.score >= RECENT_SCORE).tolist():
            box = detections.xyxy[row].astype(float)
            xy, length_px = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
            known = min(self._targets, key=lambda target: float(np.abs(target.xy - xy).max()), default=None)
            if known is None or np.abs(known.xy - xy).max() > NEAR * max(known.length_px, length_px):
                self._targets.append(_Expected(xy, np.zeros(2), length_px, pts_s))
                continue
            elapsed_s = pts_s - known.seen_s
            if elapsed_s > 0:
                known.velocity_px_s = known.velocity_px_s + SPEED_GAIN * (xy - known.xy) / elapsed_s
                known.xy, known.length_px, known.seen_s = xy, length_px, pts_s


def with_motion(
    detections: Detections, candidates: Sequence[Candidate], expected: NDArray[np.float32], view: MapView
) -> Detections:
    """Return the detections with motion scores, and rows for candidates and expected targets outside their boxes.

    The new rows are points, boxes without a mask: `outlined` gives those that are kept their true bounds.

    Args:
        detections: the mask components.
        candidates: of motion, best first.
        expected: boxes (N, 4) of expected targets, frame pixels.
        view: which part of the frame is watched.
    """
    motion = detections.motion_score.copy()
    left, top, right, bottom = view.region or (0, 0, *detections.size_px)
    polygons = [np.asarray(polygon, np.float32) for polygon in view.ignore]
    points: list[tuple[float, float, float, float]] = []  # x, y, motion score, length

    def is_watched(x: float, y: float) -> bool:
        return left <= x < right and top <= y < bottom and not is_masked((x, y), polygons)

    places = np.array([(candidate.x_px, candidate.y_px) for candidate in candidates]).reshape(-1, 1, 2)
    for candidate, inside in zip(candidates, _inside(detections.xyxy, places), strict=True):
        if inside.any():
            motion[inside] = np.maximum(motion[inside], candidate.score)
        elif is_watched(candidate.x_px, candidate.y_px):
            points.append((candidate.x_px, candidate.y_px, candidate.score, max(candidate.length_px, POINT_PX)))
    centres = np.array([*(detections.xyxy[:, :2] + detections.xyxy[:, 2:]) / 2, *(point[:2] for point in points)])
    reach = np.repeat([NEAR, ON_TARGET], [len(detections), len(points)])
    for x0, y0, x1, y1 in expected.tolist():
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        is_alone = (np.abs(centres.reshape(-1, 2) - (x, y)).max(axis=1) > reach * (x1 - x0)).all()
        if is_alone and is_watched(x, y):
            points.append((x, y, 0.0, max(x1 - x0, POINT_PX)))
    return _extended(replace(detections, motion_score=motion), np.array(points, np.float32).reshape(-1, 4))


def outlined(detections: Detections, grey: NDArray[np.uint8]) -> Detections:
    """Return the detections with tight boxes; of several without a mask on one target, the most probable.

    Rows without a mask get the outline of what stands out there.  So do the boxes of infrared masks, where the outline
    agrees with the mask: a thermal target is a blob, which its contrast bounds more tightly than the network's mask.

    Args:
        detections: of the frame.
        grey: the frame, uint8 (H, W), perhaps reduced.
    """
    factor = detections.size_px[0] / grey.shape[1]
    boxes, centroid, area_px = detections.xyxy.copy(), detections.centroid.copy(), detections.area_px.copy()
    masks = list(detections.masks)
    has_mask = np.array([mask.width > 0 for mask in masks], np.bool_)  # not only a remembered score
    for row in range(len(detections)):
        if has_mask[row] and detections.band is not Band.INFRARED:
            continue
        x, y = (float(value) / factor for value in centroid[row])
        found = outline(grey, x, y, float((boxes[row, 2:] - boxes[row, :2]).max()) / factor)
        if has_mask[row]:
            if found is not None and iou(box := found.xyxy * factor, boxes[row]) >= AGREEING_IOU:
                boxes[row] = box
            continue
        found = found or point_outline(grey, x, y)
        boxes[row], centroid[row] = found.xyxy * factor, np.array(found.centroid) * factor
        area_px[row] = found.mask.sum() * factor**2
        masks[row] = _mask(found, factor, detections.mask_scale)
    whole = replace(detections, xyxy=boxes, centroid=centroid, area_px=area_px, masks=masks)
    return whole.rows(_distinct(whole, has_mask))


def _distinct(detections: Detections, has_mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the rows with a mask, and of the others those whose centroid lies in no better row's box."""
    kept: list[int] = []
    for row in np.lexsort((-detections.score, ~has_mask)).tolist():
        place = detections.centroid[row].astype(float)
        if not kept or has_mask[row] or not _inside(detections.xyxy[kept], place).any():
            kept.append(row)
    return np.array(sorted(kept), np.intp)


def _extended(detections: Detections, points: NDArray[np.float32]) -> Detections:
    """Return the detections with rows for points (N, 4): x, y, motion score, side of the box."""
    count = len(points)
    if not count:
        return detections
    zeros, half = np.zeros(count, np.float32), points[:, 3:] / np.float32(2)

    def joined(column: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([column, values])

    return replace(
        detections,
        xyxy=joined(detections.xyxy, np.hstack([points[:, :2] - half, points[:, :2] + half])),
        score=joined(detections.score, zeros),
        mask_score=joined(detections.mask_score, zeros),
        motion_score=joined(detections.motion_score, points[:, 2]),
        novelty=joined(detections.novelty, zeros),
        class_scores=joined(detections.class_scores, np.zeros((count, detections.class_scores.shape[1]), np.float32)),
        area_px=joined(detections.area_px, points[:, 3] ** 2),
        centroid=joined(detections.centroid, points[:, :2]),
        masks=[*detections.masks, *[Mask(0, 0, 0, 0, b"")] * count],
    )


def _mask(found: Outline, factor: float, mask_scale: tuple[float, float]) -> Mask:
    """Return the outline as a mask, in pixels of the network's input."""
    sx, sy = factor / mask_scale[0], factor / mask_scale[1]
    height, width = found.mask.shape
    size = max(1, round(width * sx)), max(1, round(height * sy))
    bits = cv2.resize(found.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    return Mask.pack(round(found.left * sx), round(found.top * sy), bits)


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the intersection over union of two boxes xyxy."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    common = float(sides.prod())
    return common / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - common, 1e-9)


def _inside(boxes: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each box (N, 4) whether a place (..., 2) lies in it or next to it; places (M, 1, 2) give (M, N)."""
    near = (boxes[:, :2] - JOIN_PX <= places) & (places <= boxes[:, 2:] + JOIN_PX)
    return np.asarray(near.all(axis=-1))
