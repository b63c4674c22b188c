"""Track metrics against labels, clip by clip: detection, false tracks, delay, identity switches.

In: a labelled clip and the rows of its `tracks.txt`.  Out: metrics that add up over clips.  Pure.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from training.datasets import Clip

DRONE = "drone"
SIZE_EDGES_PX = (8.0, 12.0, 20.0, 32.0)  # of a label's size, the square root of its area
BOX_MARGIN = 0.5  # a track matches a label if its centre lies in the label's box, enlarged by this share


@dataclass(frozen=True)
class TrackRow:
    """A row of tracks.txt."""

    frame: int  # 0-based
    track: int
    xyxy: tuple[float, float, float, float]


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

    @property
    def recall(self) -> float:
        """Share of labelled boxes with a matching track."""
        return _ratio(self.right_centre, self.labelled)

    @property
    def precision(self) -> float:
        """Share of track rows that match a label."""
        return _ratio(self.right_centre, self.rows)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.right_centre, self.labelled + self.rows)

    @property
    def f1_iou(self) -> float:
        """F1 with matches at an IoU of 0.5 or more."""
        return _ratio(2 * self.right_iou, self.labelled + self.rows)

    @property
    def delay_s(self) -> float:
        """Median time from the first label to the first matching track."""
        return median(self.delays_s) if self.delays_s else float("nan")

    @property
    def false_per_minute(self) -> float:
        """False tracks per minute of clips without drones."""
        return _ratio(60 * self.false_tracks, self.negative_s)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def evaluate_clip(clip: Clip, rows: Sequence[TrackRow], frames: int) -> ClipMetrics:
    """Return the metrics of a clip of `frames` decoded frames."""
    if clip.clip_class != DRONE:
        tracks = {row.track for row in rows}
        alarmed = [clip.name] if tracks else []
        return ClipMetrics(negative_clips=1, alarmed=alarmed, false_tracks=len(tracks), negative_s=frames / clip.fps)
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
        sizes = [size_bin(item.xyxy) for item in drones]
        metrics.labelled_of_size.update(sizes)
        for label, row_index in _pairs(_centre_inside(labels, boxes)):
            metrics.right_centre += 1
            metrics.right_of_size[sizes[label]] += 1
            first_right = number if first_right is None else first_right
            identity, track = drones[label].track_id, seen[row_index].track
            metrics.switches += last_track.get(identity, track) != track
            last_track[identity] = track
        metrics.right_iou += len(_pairs(_iou(labels, boxes) >= 0.5))
    if first_right is None or first_label is None:
        metrics.missed.append(clip.name)
    else:
        metrics.found = 1
        metrics.delays_s.append((first_right - first_label) / clip.fps)
    return metrics


def size_bins() -> list[str]:
    """Return the names of the bins of label sizes, smallest first."""
    between = [f"{low:g}-{high:g} px" for low, high in pairwise(SIZE_EDGES_PX)]
    return [f"< {SIZE_EDGES_PX[0]:g} px", *between, f">= {SIZE_EDGES_PX[-1]:g} px"]


def size_bin(xyxy: tuple[float, float, float, float]) -> str:
    """Return the bin of a box's size."""
    x0, y0, x1, y1 = xyxy
    return size_bins()[bisect_right(SIZE_EDGES_PX, math.sqrt(max(0.0, (x1 - x0) * (y1 - y0))))]


def _pairs(matches: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return a one-to-one assignment with the most label-row matches."""
    labels, rows = linear_sum_assignment(matches, maximize=True)
    return [(int(a), int(b)) for a, b in zip(labels, rows, strict=True) if matches[a, b]]


def _centre_inside(labels: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
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


def table(groups: dict[str, ClipMetrics]) -> str:
    """Return a Markdown table with a line per group."""
    head = (
        "group", "drones found", "precision", "recall", "F1", "F1 IoU .5", "delay s", "id switches",
        "negative clips alarmed", "false tracks/min",
    )  # fmt: skip
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for name, one in groups.items():
        cells = [
            name,
            f"{one.found} of {one.drone_clips}",
            *(_text(value) for value in (one.precision, one.recall, one.f1, one.f1_iou)),
            _text(one.delay_s, 2),
            str(one.switches),
            f"{len(one.alarmed)} of {one.negative_clips}",
            _text(one.false_per_minute, 1),
        ]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def size_table(groups: dict[str, ClipMetrics]) -> str:
    """Return a Markdown table of recall by label size, a line per group with drones."""
    lines = ["drones | " + " | ".join(size_bins()), " | ".join(["---"] * (1 + len(size_bins())))]
    for name, one in groups.items():
        if one.drone_clips:
            shares = [(one.right_of_size[size], one.labelled_of_size[size]) for size in size_bins()]
            cells = [f"{_text(_ratio(*share))} of {share[1]}" if share[1] else "-" for share in shares]
            lines.append(" | ".join([name, *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def _text(value: float, digits: int = 3) -> str:
    return "-" if value != value else f"{value:.{digits}f}"
