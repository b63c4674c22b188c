"""Thumbnails of an input's targets: of each track the frame of its highest score.

In: frames, their Detections and tracks.  Out: a few JPEG images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.overlay import draw
from pipeline.types import UAV, Detections, Frame, Track, TrackState

SIZE_PX = (320, 240)
CONTEXT = 3  # a thumbnail shows at least this many times the target's size
MAX_SCALE = 4
MAX_THUMBNAILS = 6  # per input


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A track at its highest score."""

    track_id: int
    label: str
    score: float
    pts_s: float
    jpeg: bytes


class Thumbnails:
    """Keeps thumbnails of at most `limit` tracks: UAVs before unknown targets, then higher scores first.

    `folder` is that of the input's outputs, DIR/<stem>; `kept` are those of an earlier replay.
    """

    def __init__(self, folder: Path, limit: int = MAX_THUMBNAILS, kept: Iterable[Thumbnail] = ()) -> None:
        self.folder = folder
        self._limit = limit
        self._best = {thumbnail.track_id: thumbnail for thumbnail in kept}

    def update(self, frame: Frame, detections: Detections, tracks: Iterable[Track]) -> None:
        """Keep the frame for each of the tracks of which it is the best so far."""
        for track in tracks:
            kept = self._best.get(track.id)
            if track.state is not TrackState.CONFIRMED or not track.is_target or (kept and track.score <= kept.score):
                continue
            if kept is None and len(self._best) >= self._limit:
                worst = min(self._best.values(), key=lambda kept: (kept.label == UAV, kept.score, -kept.track_id))
                if (worst.label == UAV, worst.score) >= (track.label == UAV, track.score):
                    continue
                del self._best[worst.track_id]
            jpeg = _jpeg(frame.pixels, detections, track)
            self._best[track.id] = Thumbnail(track.id, track.label, track.score, frame.ref.pts_s, jpeg)

    def by_track(self) -> list[Thumbnail]:
        """Return the thumbnails, those of the oldest tracks first."""
        return [thumbnail for _, thumbnail in sorted(self._best.items())]


def _jpeg(pixels: NDArray[np.uint8], detections: Detections, track: Track) -> bytes:
    """Encode the target and its surroundings, in at most SIZE_PX."""
    left, top, right, bottom = track.xyxy
    need = CONTEXT * max((right - left) / SIZE_PX[0], (bottom - top) / SIZE_PX[1])
    scale, shrink = max(1, int(1 / max(need, 1 / MAX_SCALE))), max(1.0, need)
    width, height = (round(side * shrink / scale) for side in SIZE_PX)
    x = int(max(0, min((left + right - width) / 2, pixels.shape[1] - width)))
    y = int(max(0, min((top + bottom - height) / 2, pixels.shape[0] - height)))
    at_rest = msgspec.structs.replace(track, velocity_px_s=(0.0, 0.0))
    image = draw(pixels[y : y + height, x : x + width], detections, [at_rest], scale, (x, y), labels=False)
    if shrink > 1:
        size = (ceil(image.shape[1] / shrink), ceil(image.shape[0] / shrink))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return jpeg.tobytes()
