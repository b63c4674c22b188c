"""Chips: registered crops of a place over the last half second, the input of the judge (`model.judge`).  Pure.

In: a camera's FrameHistory, points and the sizes of what is there.  Out: uint8 (N, T, S, S) grey crops, newest first,
at native resolution; what is larger than LARGEST_PX is reduced so that it fits.  Each past frame is cut where its
background was, so what stands still in the scene stands still in the chip, however the camera moves.
"""

from collections.abc import Sequence
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from model.native import pixels as native
from model.native.library import is_available
from pipeline.segmentation.frame_history import FrameHistory, PastFrame

CHIP_PX = 48
LAGS_S = (0.0, 0.1, 0.2, 0.35, 0.5)
LARGEST_PX = 30.0  # a target's longer side in a chip


def cut_chips(
    history: FrameHistory,
    points_px: Sequence[tuple[float, float]],
    lengths_px: Sequence[float],
    side_px: int = CHIP_PX,
) -> NDArray[np.uint8]:
    """Return chips, uint8 (N, len(LAGS_S), side_px, side_px); with a short history, its oldest frame stands in.

    Args:
        history: of the camera; its newest frame is the current one.
        points_px: centres, frame pixels.
        lengths_px: longer side of the target at each; 0: unknown, taken for small.
        side_px: side of the chips.
    """
    chips = np.empty((len(points_px), len(LAGS_S), side_px, side_px), np.uint8)
    newest = history.newest
    if newest is None or not len(points_px):
        return chips[:0]
    past = [history.at(lag_s) or newest for lag_s in LAGS_S]
    to_kept = newest.grey.shape[1] / newest.width_px
    moved = np.array([np.subtract(newest.position_px, frame.position_px) for frame in past])
    places = (np.array(points_px)[:, None] - moved) * to_kept  # (N, T, 2)
    scales = np.array([chip_scale(length * to_kept) for length in lengths_px])
    is_native = (scales == 1) & is_available()
    if is_native.any():
        images = [frame.grey for frame in past]
        chips[is_native] = native.cut(images, places[is_native] - side_px / 2, side_px)
    for row in np.flatnonzero(~is_native).tolist():
        for column, frame in enumerate(past):
            x, y = places[row, column].tolist()
            chips[row, column] = _cut(frame, x, y, float(scales[row]), side_px)
    return chips


def chip_scale(length_px: float) -> float:
    """Return chip pixels per kept pixel for a target of this length."""
    return min(1.0, LARGEST_PX / max(length_px, 1.0))


def _cut(frame: PastFrame, x: float, y: float, scale: float, side_px: int) -> NDArray[np.uint8]:
    """Return the square crop centred on a point, reflected at the frame's edges."""
    oversampling = ceil(0.5 / scale)  # a large target is sampled finer, then averaged
    scale, side = scale * oversampling, side_px * oversampling
    # A pixel's centre lies at +0.5 in these coordinates, and at its index in OpenCV's.
    left, top = (side / 2 - middle * scale + (scale - 1) / 2 for middle in (x, y))
    transform = np.array([[scale, 0, left], [0, scale, top]], np.float32)
    crop = cv2.warpAffine(
        frame.grey, transform, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    if oversampling > 1:
        crop = cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, np.uint8)
