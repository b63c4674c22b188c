"""Association of predicted tracks with a frame's detections, at minimum total cost.  Pure.

A pair is possible within a Mahalanobis gate, a largest distance and a largest ratio of sizes.  ln|S| in the cost keeps
a track with a large covariance from taking the detections of a certain one.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

NO_MATCH_COST = 1e6
SIZE_COST = 0.4  # logarithm of a ratio of sizes that costs 1
MIN_POSITION_STD_PX = 0.7  # of a detection's centre
POSITION_STD_D = 0.12  # likewise, in target sizes


class Places(NamedTuple):
    """Places of N targets in the frame, predicted or detected."""

    x: NDArray[np.float64]  # (N,) px
    y: NDArray[np.float64]
    variance: NDArray[np.float64]  # of x, and of y
    apparent_px: NDArray[np.float64]  # sqrt(box width x height)


def measurement_std(apparent_px: float) -> float:
    """Return the standard deviation of a detection's centre, in pixels."""
    return max(MIN_POSITION_STD_PX, POSITION_STD_D * apparent_px)


def detected_places(xyxy: NDArray[np.float32]) -> Places:
    """Return the places of boxes (N, 4)."""
    boxes = xyxy.astype(float)
    apparent = np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0).prod(axis=1))
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return Places(x, y, np.maximum(MIN_POSITION_STD_PX, POSITION_STD_D * apparent) ** 2, apparent)


def assign(
    tracks: Places, detections: Places, gate: float, max_distance_px: NDArray[np.float64], max_size_ratio: float
) -> list[tuple[int, int]]:
    """Return the matched pairs (index of a track, index of a detection) of least total cost.

    Args:
        tracks: predicted.
        detections: of the frame.
        gate: squared Mahalanobis distance.
        max_distance_px: (N,) between prediction and detection.
        max_size_ratio: of the larger to the smaller.
    """
    if not len(tracks.x) or not len(detections.x):
        return []
    dx, dy = (there[None] - here[:, None] for here, there in ((tracks.x, detections.x), (tracks.y, detections.y)))
    squared_px = dx * dx + dy * dy
    innovation = tracks.variance[:, None] + detections.variance[None]
    rows, columns = np.nonzero((squared_px <= gate * innovation) & (squared_px <= max_distance_px[:, None] ** 2))
    ratio = np.abs(np.log(detections.apparent_px[columns] / tracks.apparent_px[rows]))
    fitting = ratio <= math.log(max_size_ratio)
    rows, columns, ratio = rows[fitting], columns[fitting], ratio[fitting]
    variance = innovation[rows, columns]
    costs = squared_px[rows, columns] / variance + 2 * np.log(variance) + (ratio / SIZE_COST) ** 2
    return _assigned(rows, columns, costs)


def _assigned(rows: NDArray[np.intp], columns: NDArray[np.intp], costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the pairs of least total cost among these, each row and column once; as many pairs as possible."""
    own_rows, row_numbers = np.unique(rows, return_inverse=True)
    own_columns, column_numbers = np.unique(columns, return_inverse=True)
    matrix = np.full((len(own_rows), len(own_columns)), NO_MATCH_COST)
    matrix[row_numbers, column_numbers] = costs
    matched = zip(*linear_sum_assignment(matrix), strict=True)
    return [(int(own_rows[i]), int(own_columns[j])) for i, j in matched if matrix[i, j] < NO_MATCH_COST]


def selected(places: Places, indices: Sequence[int] | NDArray[np.intp]) -> Places:
    """Return these of the places."""
    chosen = np.asarray(indices, np.intp)
    return Places(*(column[chosen] for column in places))
