"""Masks of several inputs of a frame -> the masks of the frame.  Pure.

Tiles overlap, and a target that two of them show is one.  The reduced frame is for near and blurred targets: the
network knows targets of a few to about thirty pixels; of a near one it sees edges and fragments, or nothing, and in
the frame reduced by REDUCTION the same target is small and sharp.  That costs a ninth of the frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.types import Detections, Mask

REDUCTION = 3
REDUCED_INTERVAL_S = 0.1  # near targets do not appear within it
REDUCED_LONGEST_S = 0.25  # likewise, where the network processes a share of each frame only ...
REDUCED_LEAST = 0.005  # ... and so much of a second between two, by the share, where that is longer
LEAST_LENGTH_PX = 5.0  # of a component in the reduced map: what is smaller is seen better in the frame itself
NEAR_LENGTH_PX = 8.0  # likewise, of one that is a near target, of which the frame itself may show fragments ...
FRAGMENT = 0.25  # ... of at most this share of its area each; blurred by reduction, a small target looks large too


def is_reduced_due(elapsed_s: float, share: float) -> bool:
    """Return whether to process the reduced frame too, so long after the last one, at a share of pixels."""
    longest_s = max(REDUCED_LONGEST_S, REDUCED_LEAST / share)
    return not 0 <= elapsed_s < min(REDUCED_INTERVAL_S / share, longest_s)


def joined(tiles: Sequence[Detections]) -> Detections:
    """Return the mask components of all tiles of a frame; of several on one target, the most probable."""
    found = tiles[0]
    if len(tiles) == 1:
        return found
    for more in tiles[1:]:
        found = _concatenated(found, more)
    kept: list[int] = []
    for row in np.argsort(-found.mask_score, kind="stable").tolist():
        inside = (found.xyxy[kept, :2] <= found.centroid[row]) & (found.centroid[row] <= found.xyxy[kept, 2:])
        if not inside.all(axis=1).any():
            kept.append(row)
    return found.rows(np.array(sorted(kept), np.intp))


def with_reduced(fine: Detections, reduced: Detections) -> Detections:
    """Return the mask components of a frame with those that only its reduced image shows, or shows whole.

    Args:
        fine: components of the frame's own map.
        reduced: components of the reduced frame's map, in frame pixels.
    """
    lengths_px = (reduced.xyxy[:, 2:] - reduced.xyxy[:, :2]).max(axis=1) / max(reduced.mask_scale)
    added = []
    kept = np.ones(len(fine), np.bool_)
    for row in np.flatnonzero(lengths_px >= LEAST_LENGTH_PX).tolist():
        touching = _touching(fine.xyxy, reduced.xyxy[row])
        is_near = lengths_px[row] >= NEAR_LENGTH_PX
        fragments = touching & is_near & (fine.area_px < FRAGMENT * reduced.area_px[row])
        if not (touching & ~fragments).any():
            kept &= ~fragments
            added.append(row)
    if not added:
        return fine
    return _concatenated(fine.rows(np.flatnonzero(kept)), reduced.rows(np.array(added, np.intp)))


def _touching(boxes: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return for each box whether it overlaps another."""
    return np.asarray((np.minimum(boxes[:, 2:], box[2:]) > np.maximum(boxes[:, :2], box[:2])).all(axis=1))


def _concatenated(fine: Detections, reduced: Detections) -> Detections:
    """Return the rows of both, with masks in pixels of the first one's map."""
    factors = tuple(coarse / sharp for coarse, sharp in zip(reduced.mask_scale, fine.mask_scale, strict=True))
    masks = reduced.masks if factors == (1.0, 1.0) else [_enlarged(mask, *factors) for mask in reduced.masks]

    def both(of: Callable[[Detections], NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([of(fine), of(reduced)])

    return replace(
        fine,
        xyxy=both(lambda one: one.xyxy),
        score=both(lambda one: one.score),
        mask_score=both(lambda one: one.mask_score),
        motion_score=both(lambda one: one.motion_score),
        novelty=both(lambda one: one.novelty),
        class_scores=both(lambda one: one.class_scores),
        area_px=both(lambda one: one.area_px),
        centroid=both(lambda one: one.centroid),
        masks=[*fine.masks, *masks],
    )


def _enlarged(mask: Mask, fx: float, fy: float) -> Mask:
    """Return a mask with `fx` times `fy` pixels for each of its own."""
    left, top = round(mask.left * fx), round(mask.top * fy)
    size = round((mask.left + mask.width) * fx) - left, round((mask.top + mask.height) * fy) - top
    bits = cv2.resize(mask.unpack().astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return Mask.pack(left, top, bits.astype(bool))
