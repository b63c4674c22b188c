"""HOTA, IDF1 and false tracks of the tracks of labelled clips, by TrackEval, with a similarity of centres.

In: a clip's labels and track rows on the frames that were tracked.  Out: `TrackingMetrics` over all clips.  A target of
a few pixels has no useful intersection over union: a 4x4 box one pixel off in x and y has 0.39.  The similarity is the
dot distance instead (Xu et al., "Dot distance for tiny object detection in aerial images", CVPR workshops 2021), scaled
by the label's own size.  Needs `trackeval`, see `tracker_environment`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets import LabelledObject
from training.evaluation.clip_metrics import TrackRow

MATCH_SIMILARITY = 0.5  # of IDF1 and of false tracks: the centre is at most ln 2 = 0.69 label sizes away


@dataclass(frozen=True)
class TrackedClip:
    """A clip's tracks beside its labels, on the frames that were tracked."""

    labels: Mapping[int, Sequence[LabelledObject]]  # by frame number; a frame without a target has an empty sequence
    rows: Sequence[TrackRow]
    duration_s: float


@dataclass(frozen=True)
class TrackingMetrics:
    """Metrics over clips; each clip counts by its labels and rows."""

    hota: float  # mean over the similarity thresholds 0.05, 0.10, ..., 0.95
    detection_accuracy: float
    association_accuracy: float
    idf1: float
    tracks: int
    false_tracks: int
    false_per_minute: float
    clip_hota: dict[str, float]  # by clip; 0 without a label or a row


def similarity(labels: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(-distance of centres / label size), (N, M), for xyxy labels (N, 4) and boxes (M, 4) in pixels."""
    centres, middles = ((b[:, :2] + b[:, 2:]) / 2 for b in (boxes, labels))
    sizes_px = np.sqrt((labels[:, 2:] - labels[:, :2]).prod(axis=1))
    distances_px = np.linalg.norm(middles[:, None] - centres[None], axis=2)
    return np.asarray(np.exp(-distances_px / sizes_px[:, None]), np.float64)


def tracking_metrics(clips: Mapping[str, TrackedClip]) -> TrackingMetrics:
    """Return the metrics over all clips, by name."""
    hota, identity = _trackeval()
    sequences = {name: _sequence(clip) for name, clip in clips.items()}
    by_clip = {name: hota.eval_sequence(data) for name, data in sequences.items()}
    total = hota.combine_sequences(by_clip)
    identities = identity.combine_sequences({name: identity.eval_sequence(data) for name, data in sequences.items()})
    false = sum(len(false_tracks(clip)) for clip in clips.values())
    duration_s = sum(clip.duration_s for clip in clips.values())
    return TrackingMetrics(
        hota=float(np.mean(total["HOTA"])),
        detection_accuracy=float(np.mean(total["DetA"])),
        association_accuracy=float(np.mean(total["AssA"])),
        idf1=float(identities["IDF1"]),
        tracks=sum(len({row.track for row in clip.rows}) for clip in clips.values()),
        false_tracks=false,
        false_per_minute=60 * false / duration_s,
        clip_hota={name: float(np.mean(one["HOTA"])) for name, one in by_clip.items()},
    )


def false_tracks(clip: TrackedClip) -> set[int]:
    """Return the tracks that are on no labelled target in more than half of their rows."""
    hits: dict[int, list[bool]] = {}
    for at, rows in _by_frame(clip).items():
        matches = _frame_similarity(clip.labels[at], rows) >= MATCH_SIMILARITY
        near = np.any(matches, axis=0, keepdims=True)[0]
        for row, hit in zip(rows, near, strict=True):
            hits.setdefault(row.track, []).append(bool(hit))
    return {track for track, each in hits.items() if 2 * sum(each) < len(each)}


def _trackeval() -> tuple[Any, Any]:
    with redirect_stdout(StringIO()):  # it reports data sets that it cannot read
        from trackeval.metrics import HOTA, Identity

        return HOTA(), Identity({"THRESHOLD": MATCH_SIMILARITY, "PRINT_CONFIG": False})


def _sequence(clip: TrackedClip) -> dict[str, Any]:
    """Return the clip as TrackEval's metrics take it: ids counted from 0, and a similarity matrix for each frame."""
    rows = _by_frame(clip)
    label_ids = _numbered(item.track_id for items in clip.labels.values() for item in items)
    track_ids = _numbered(row.track for row in clip.rows)
    frames = sorted(clip.labels)
    return {
        "num_timesteps": len(frames),
        "num_gt_ids": len(label_ids),
        "num_tracker_ids": len(track_ids),
        "num_gt_dets": sum(len(items) for items in clip.labels.values()),
        "num_tracker_dets": len(clip.rows),
        "gt_ids": [np.array([label_ids[item.track_id] for item in clip.labels[at]], int) for at in frames],
        "tracker_ids": [np.array([track_ids[row.track] for row in rows[at]], int) for at in frames],
        "similarity_scores": [_frame_similarity(clip.labels[at], rows[at]) for at in frames],
    }


def _by_frame(clip: TrackedClip) -> dict[int, list[TrackRow]]:
    rows: dict[int, list[TrackRow]] = {at: [] for at in clip.labels}
    for row in clip.rows:
        rows[row.frame].append(row)
    return rows


def _frame_similarity(labels: Sequence[LabelledObject], rows: Sequence[TrackRow]) -> NDArray[np.float64]:
    return similarity(_boxes(item.xyxy for item in labels), _boxes(row.xyxy for row in rows))


def _boxes(boxes: Iterable[Collection[float]]) -> NDArray[np.float64]:
    return np.array(list(boxes), np.float64).reshape(-1, 4)


def _numbered(ids: Iterable[int]) -> dict[int, int]:
    return {identity: number for number, identity in enumerate(sorted(set(ids)))}
