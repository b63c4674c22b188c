"""Mask metrics: pixel counts of a predicted against the true mask, and the metrics derived from them.  Pure.

In: boolean masks and probability maps (H, W).  Out: counts (tp, fp, fn) per image; from counts (N, 3) precision,
recall, Dice and IoU per image and pooled over all pixels; the precision-recall curve; a target's diameter.

Metrics per image are the original's, with its epsilon: (tp + e) / (tp + fp + e) and so on.  All four are 1 for an image
without a target in which nothing is predicted; else its precision, Dice and IoU are 0 and its recall is 1.  An
image with a target in which nothing is predicted has precision 1 and recall, Dice and IoU 0.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.masks import Mask

Counts = npt.NDArray[np.int64]  # (..., 3): true positive, false positive and false negative pixels
Floats = npt.NDArray[np.float64]

UAV_LABEL = 1  # in label maps: 1 + index into model.metadata.CLASSES
METRICS = ("precision", "recall", "dice", "iou")
EPSILON = 1e-6
THRESHOLD = 0.5  # a pixel is positive where its probability is above
SIZE_EDGES_PX = (8, 16, 32)  # of a target's diameter
SIZE_BINS = ("< 8 px", "8-16 px", "16-32 px", ">= 32 px")
NO_TARGET = "no target"
# Even steps of the logit, as probabilities concentrate at 0 and 1; the first threshold admits every pixel.
THRESHOLDS = np.concatenate([[0.0], 1 / (1 + np.exp(-np.arange(-10, 10.25, 0.25)))]).astype(np.float32)


def count(predicted: Mask, truth: Mask) -> Counts:
    """Return counts (3,) of two masks of one shape."""
    both = np.count_nonzero(predicted & truth)
    return np.array([both, np.count_nonzero(predicted) - both, np.count_nonzero(truth) - both], np.int64)


def image_metrics(counts: Counts) -> Floats:
    """Return METRICS of each image, (N, 4) from (N, 3)."""
    tp, fp, fn = counts.astype(np.float64).T
    parts = np.stack([tp, tp, 2 * tp, tp])
    wholes = np.stack([tp + fp, tp + fn, 2 * tp + fp + fn, tp + fp + fn])
    return np.asarray((parts + EPSILON) / (wholes + EPSILON)).T


def pooled_metrics(counts: Counts) -> list[float | None]:
    """Return METRICS over the pixels of all images, without epsilon; None where the denominator is 0."""
    tp, fp, fn = (int(total) for total in counts.sum(axis=0))
    pairs = ((tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn), (tp, tp + fp + fn))
    return [part / whole if whole else None for part, whole in pairs]


def diameter_px(truth: Mask) -> float | None:
    """Return the square root of the area of the largest target (8-connected); None without a target."""
    number, _, boxes, _ = cv2.connectedComponentsWithStats(truth.astype(np.uint8), connectivity=8)
    return float(boxes[1:, cv2.CC_STAT_AREA].max()) ** 0.5 if number > 1 else None


def size_bin(diameter: float | None) -> str:
    """Return one of SIZE_BINS, or NO_TARGET; a bin includes its lower edge."""
    return NO_TARGET if diameter is None else SIZE_BINS[int(np.searchsorted(SIZE_EDGES_PX, diameter, side="right"))]


def threshold_histogram(probabilities: npt.NDArray[np.float32], truth: Mask) -> Counts:
    """Return pixel counts (2, T + 1) of targets and background, by the number of THRESHOLDS below their probability.

    Histograms of several images add up; `precision_recall` makes the curve.
    """
    above = np.searchsorted(THRESHOLDS, probabilities, side="left")
    length = len(THRESHOLDS) + 1
    return np.stack([np.bincount(above[which], minlength=length) for which in (truth, ~truth)]).astype(np.int64)


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall (T,) at each of THRESHOLDS.

    Average precision: the sum over falling thresholds of (R[n] - R[n - 1]) P[n], no interpolation (Zhu, 2004,
    "Recall, precision and average precision"); None without a target.
    """

    precision: Floats
    recall: Floats
    average_precision: float | None


def precision_recall(histogram: Counts) -> PrecisionRecallCurve:
    """Return the curve; precision is 1 where nothing is predicted, recall is 1 without a target."""
    tp, fp = histogram[:, ::-1].cumsum(axis=1)[:, -2::-1]  # of thresholds k: pixels above more than k of them
    targets = int(histogram[0].sum())
    precision = np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), 1.0)
    recall = tp / targets if targets else np.ones(len(tp))
    steps = -np.diff(recall, append=0.0)
    return PrecisionRecallCurve(precision, recall, float((steps * precision).sum()) if targets else None)
