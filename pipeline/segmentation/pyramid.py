"""Near and blurred targets: the network's masks of a reduced frame, added to those of the frame itself.  Pure.

The network knows targets of a few to about thirty pixels.  Of a near one it sees edges and fragments, or nothing; in
the frame reduced by REDUCTION the same target is small and sharp.  The reduced frame costs a ninth of the frame.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.types import Detections, Mask

REDUCTION = 3
REDUCED_INTERVAL_S = 0.1  # near targets do not appear within it
LEAST_LENGTH_PX = 4.0  # of a component in the reduced map: what is smaller is seen better in the frame itself
FRAGMENT = 0.5  # a component of less than this share of the reduced one's area, and inside it, is a fragment of it


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
        fragments = touching & (fine.area_px < FRAGMENT * reduced.area_px[row])
        if not (touching & ~fragments).any():
            kept &= ~fragments
            added.append(row)
    if not added:
        return fine
    return _joined(fine.rows(np.flatnonzero(kept)), reduced.rows(np.array(added, np.intp)))


def _touching(boxes: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return for each box whether it overlaps another."""
    return np.asarray((np.minimum(boxes[:, 2:], box[2:]) > np.maximum(boxes[:, :2], box[:2])).all(axis=1))


def _joined(fine: Detections, reduced: Detections) -> Detections:
    names = ("xyxy", "score", "mask_score", "motion_score", "novelty", "class_scores", "area_px", "centroid")
    columns = {name: np.concatenate([getattr(fine, name), getattr(reduced, name)]) for name in names}
    factors = tuple(coarse / sharp for coarse, sharp in zip(reduced.mask_scale, fine.mask_scale, strict=True))
    return replace(fine, **columns, masks=[*fine.masks, *(_enlarged(mask, *factors) for mask in reduced.masks)])


def _enlarged(mask: Mask, fx: float, fy: float) -> Mask:
    """Return a mask with `fx` times `fy` pixels for each of its own."""
    left, top = round(mask.left * fx), round(mask.top * fy)
    size = round((mask.left + mask.width) * fx) - left, round((mask.top + mask.height) * fy) - top
    bits = cv2.resize(mask.unpack().astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return Mask.pack(left, top, bits.astype(bool))
