"""The trackers that ours is compared with, on the same detections: roboflow's ByteTrack, OC-SORT, BoT-SORT and C-BIoU.

In: stored detections.  Out: rows as `tracks.txt` has them, of the frames in which a confirmed track has a detection.
Each is given the frame rate and the times of the frames, BoT-SORT also the stored motion of the camera.  Needs
`trackers`, see `tracker_environment`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Detections
from training.evaluation.clip_metrics import TrackRow

_NO_PIXELS = np.zeros((1, 1, 3), np.uint8)  # BoT-SORT asks for camera motion only where it is given a frame


@dataclass(frozen=True)
class Peer:
    """A tracker of the package `trackers` with its settings; those that are not given are the package's."""

    name: str
    tracker: str  # class
    settings: dict[str, Any] = field(default_factory=dict)
    grown: float | None = None  # boxes are compared after growing them by this share of their sides, on every side


_ALL_DETECTIONS = {"track_activation_threshold": 0.3, "high_conf_det_threshold": 0.3}
_LOW_IOU = {f"minimum_iou_threshold_{stage}_assoc": 0.1 for stage in ("first", "second", "unconfirmed")}

# Each as it comes, and with settings for targets of few pixels, chosen in its favour on clips that it is compared on:
# the detector's threshold is the only one on the score, and boxes are grown, since small ones do not overlap.
PEERS = (
    Peer("ByteTrack", "ByteTrackTracker"),
    Peer("OC-SORT", "OCSORTTracker"),
    Peer("BoT-SORT", "BoTSORTTracker"),
    Peer("C-BIoU", "CBIoUTracker"),
    Peer("ByteTrack, tuned", "ByteTrackTracker", _ALL_DETECTIONS, grown=2.0),
    Peer(
        "OC-SORT, tuned",
        "OCSORTTracker",
        {"high_conf_det_threshold": 0.3, "minimum_iou_threshold": 0.1, "minimum_consecutive_frames": 2},
        grown=2.0,
    ),
    Peer("BoT-SORT, tuned", "BoTSORTTracker", _ALL_DETECTIONS | _LOW_IOU, grown=2.0),
    Peer(
        "C-BIoU, tuned",
        "CBIoUTracker",
        _ALL_DETECTIONS | _LOW_IOU | {"buffer_ratio_first": 2.0, "buffer_ratio_second": 3.0},
    ),
)


def peer_rows(peer: Peer, frames: Iterable[Detections], frame_rate: float) -> Iterator[TrackRow]:
    """Track the frames, which come at about `frame_rate` per second, and yield the rows of confirmed tracks."""
    import supervision
    import trackers

    grown = {} if peer.grown is None else {"iou": trackers.BIoU(peer.grown)}
    tracker = getattr(trackers, peer.tracker)(frame_rate=frame_rate, **peer.settings, **grown)
    camera = _StoredCameraMotion()
    moves = getattr(tracker, "enable_cmc", False)
    if moves:
        tracker.cmc = camera
    for found in frames:
        camera.shift_px = found.camera_shift_px
        boxes = supervision.Detections(xyxy=found.xyxy.astype(float), confidence=found.score.astype(float))
        tracked = tracker.update(boxes, frame=_NO_PIXELS if moves else None, timestamp=found.ref.pts_s)
        for box, identity in zip(tracked.xyxy, tracked.tracker_id, strict=True):
            if identity >= 0:
                x0, y0, x1, y1 = map(float, box)
                yield TrackRow(found.ref.seq, int(identity), (x0, y0, x1, y1))


class _StoredCameraMotion:
    """Stands in for BoT-SORT's own estimate, which needs the pixels."""

    shift_px: tuple[float, float] | None = None

    def estimate(self, _frame: NDArray[np.uint8], _boxes: NDArray[np.float64] | None) -> NDArray[np.float32]:
        """Return the affine transform (2, 3) from the previous frame to this one."""
        affine = np.eye(2, 3, dtype=np.float32)
        affine[:, 2] = self.shift_px or (0.0, 0.0)
        return affine
