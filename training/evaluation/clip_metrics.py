"""Track metrics against labels, clip by clip: detection, false tracks, delay, identity switches.

In: a labelled clip and the rows of its `tracks.txt`.  Out: metrics that add up over clips.  Pure.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from training.datasets import Clip
from training.masks import Box

DRONE = "drone"
SIZE_EDGES_PX = (3.0, 5.0, 8.0, 12.0, 20.0)  # of the apparent size, see `apparent_px`
LEAST_OBJECT_SHARE = 0.4  # of a label's side: small labels are drawn with less than the usual margin (measured)
BOX_MARGIN = 0.5  # a track matches a label if its centre lies in the label's box, enlarged by this share
MATCHING_IOU = 0.5


@dataclass(frozen=True)
class TrackRow:
    """A row of tracks.txt."""

    frame: int  # 0-based
    track: int
    xyxy: Box


@dataclass
class ClipMetrics:
    """Sums over clips: detection metrics of drone clips, false tracks of the others."""

    drone_clips: int = 0
    found: int = 0
    labelled: int = 0  # boxes
    rows: int = 0
    right_centre: int = 0
    right_iou: int = 0
    labelled_of_size: Counter[str] = field(default_factory=Counter)  # boxes by bin, see `size_bins`
    right_of_size: Counter[str] = field(default_factory=Counter)
    switches: int = 0
    delays_s: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    negative_clips: int = 0
    alarmed: list[str] = field(default_factory=list)
    false_tracks: int = 0
    negative_s: float = 0.0

    def add(self, other: "ClipMetrics") -> None:
        """Add another clip's metrics."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def ratio(self, name: str) -> float:
        """Return one of RATIOS; nan without anything to count."""
        return ratio(*RATIOS[name](self))

    @property
    def delay_s(self) -> float:
        """Median time from the first label to the first matching track."""
        return median(self.delays_s) if self.delays_s else float("nan")


# Each figure is a ratio of sums over clips, given as part and whole.
RATIOS: dict[str, Callable[[ClipMetrics], tuple[float, float]]] = {
    "drones found": lambda one: (one.found, one.drone_clips),
    "precision": lambda one: (one.right_centre, one.rows),
    "recall": lambda one: (one.right_centre, one.labelled),
    "F1": lambda one: (2 * one.right_centre, one.labelled + one.rows),
    "F1 IoU .5": lambda one: (2 * one.right_iou, one.labelled + one.rows),
    "negative clips alarmed": lambda one: (len(one.alarmed), one.negative_clips),
    "false tracks/min": lambda one: (one.false_tracks, one.negative_s / 60),
}


def ratio(part: float, whole: float) -> float:
    """Return part / whole, nan for a whole of 0."""
    return part / whole if whole else float("nan")


def evaluate_clip(
    clip: Clip, rows: Sequence[TrackRow], frames: int, label_margin_px: float = 0.0, box_margin_px: float = 0.0
) -> ClipMetrics:
    """Return the metrics of a clip of `frames` decoded frames.

    `label_margin_px` is the distance from the object to its label's edge, `box_margin_px` that to the edge of the rows'
    boxes: for the IoU, tighter boxes are widened by the difference.
    """
    if clip.clip_class != DRONE:
        tracks = {row.track for row in rows}
        alarmed = [clip.name] if tracks else []
        return ClipMetrics(negative_clips=1, alarmed=alarmed, false_tracks=len(tracks), negative_s=frames / clip.fps)
    widening_px = max(0.0, label_margin_px - box_margin_px) * np.array([-1, -1, 1, 1])
    metrics = ClipMetrics(drone_clips=1, rows=len(rows))
    by_frame: dict[int, list[TrackRow]] = {}
    for row in rows:
        by_frame.setdefault(row.frame, []).append(row)
    last_track: dict[int, int] = {}
    first_label = first_right = None
    for number, objects in enumerate(clip.frames[:frames]):
        drones = [item for item in objects if item.object_class == DRONE]
        metrics.labelled += len(drones)
        if drones and first_label is None:
            first_label = number
        seen = by_frame.get(number, [])
        boxes = np.array([row.xyxy for row in seen]).reshape(-1, 4)
        labels = np.array([item.xyxy for item in drones]).reshape(-1, 4)
        sizes = [size_bin(apparent_px(item.xyxy, label_margin_px)) for item in drones]
        metrics.labelled_of_size.update(sizes)
        for label, row_index in _pairs(centre_inside(labels, boxes)):
            metrics.right_centre += 1
            metrics.right_of_size[sizes[label]] += 1
            first_right = number if first_right is None else first_right
            identity, track = drones[label].track_id, seen[row_index].track
            metrics.switches += last_track.get(identity, track) != track
            last_track[identity] = track
        metrics.right_iou += len(_pairs(_iou(labels, boxes + widening_px) >= MATCHING_IOU))
    if first_right is None or first_label is None:
        metrics.missed.append(clip.name)
    else:
        metrics.found = 1
        metrics.delays_s.append((first_right - first_label) / clip.fps)
    return metrics


def size_bins() -> list[str]:
    """Return the names of the bins of apparent sizes, smallest first."""
    between = [f"{low:g}-{high:g} px" for low, high in pairwise(SIZE_EDGES_PX)]
    return [f"< {SIZE_EDGES_PX[0]:g} px", *between, f">= {SIZE_EDGES_PX[-1]:g} px"]


def size_bin(apparent_px: float) -> str:
    """Return the bin of an apparent size."""
    return size_bins()[bisect_right(SIZE_EDGES_PX, apparent_px)]


def apparent_px(label: Box, label_margin_px: float) -> float:
    """Return the longest side of the object in a label's box."""
    x0, y0, x1, y1 = label
    side_px = max(x1 - x0, y1 - y0)
    return max(LEAST_OBJECT_SHARE * side_px, side_px - 2 * label_margin_px)


def median_apparent_px(clip: Clip, label_margin_px: float) -> float:
    """Return the median apparent size of a clip's labelled drones; nan without one."""
    drones = [item.xyxy for objects in clip.frames for item in objects if item.object_class == DRONE]
    return median(apparent_px(box, label_margin_px) for box in drones) if drones else float("nan")


def _pairs(matches: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return a one-to-one assignment with the most label-row matches."""
    labels, rows = linear_sum_assignment(matches, maximize=True)
    return [(int(a), int(b)) for a, b in zip(labels, rows, strict=True) if matches[a, b]]


def centre_inside(labels: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each label (N, 4) and box (M, 4) whether the box's centre matches the label, (N, M)."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    middle, half = (labels[:, :2] + labels[:, 2:]) / 2, (labels[:, 2:] - labels[:, :2]) / 2 * (1 + BOX_MARGIN)
    near = np.abs(centres[None] - middle[:, None]) <= half[:, None]
    return np.asarray(near.all(axis=2))


def _iou(labels: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    low = np.maximum(labels[:, None, :2], boxes[None, :, :2])
    high = np.minimum(labels[:, None, 2:], boxes[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (labels, boxes)]
    union: NDArray[np.float64] = areas[0][:, None] + areas[1][None] - common
    return np.asarray(common / np.maximum(union, 1e-9))


def read_track_rows(lines: Iterable[str]) -> list[TrackRow]:
    """Return the rows of a tracks.txt (1-based frames, x, y, width, height)."""
    rows = []
    for line in lines:
        frame, track, x, y, width, height, *_ = (float(value) for value in line.split(","))
        rows.append(TrackRow(int(frame) - 1, int(track), (x, y, x + width, y + height)))
    return rows
