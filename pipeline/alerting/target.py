"""What alerting takes from a track: its place, its size, the severity of its label, whether it approaches.  Pure.

D is a target's apparent size, sqrt(box width x height).
"""

import math

from pipeline.geometry import Point
from pipeline.types import UAV, UNKNOWN, Severity, Track

APPROACH_RATIO = 2.0  # growth of a target that approaches: half the distance ...
APPROACH_PX = 8.0  # ... and at least this much: a box of 4 px may double by one more pixel at each edge
SIZE_S = 0.5  # time constant that smooths D, since masks flicker ...
SETTLE_S = 1.0  # ... and for how long it settles before it is compared with
SEVERITIES = (Severity.INFO, Severity.WARNING, Severity.ALARM)  # by rank, of a label and of its severity


def rank(label: str) -> int:
    """Return 2 for a uav, 1 for an unknown target, 0 for a distractor."""
    return {UAV: 2, UNKNOWN: 1}.get(label, 0)


def centre(track: Track) -> Point:
    """Return the centre of a track's box."""
    left, top, right, bottom = track.xyxy
    return (left + right) / 2, (top + bottom) / 2


def apparent_px(track: Track) -> float:
    """Return D of a track."""
    left, top, right, bottom = track.xyxy
    return max(1.0, math.sqrt(max(0.0, right - left) * max(0.0, bottom - top)))


class Approach:
    """Tell when D, smoothed, has grown by APPROACH_RATIO since it was last told, or since the first time."""

    def __init__(self, first_s: float) -> None:
        self._settled_s = first_s + SETTLE_S
        self._smooth_px = self._reference_px = 0.0
        self._last_s: float | None = None

    def restart(self) -> None:
        """Compare with the size from here on."""
        self._reference_px = self._smooth_px

    def update(self, pts_s: float, size_px: float) -> bool:
        """Add the size at a frame; return whether it has grown by as much."""
        if self._last_s is None:
            self._smooth_px = size_px
        else:
            self._smooth_px += (1 - math.exp(-abs(pts_s - self._last_s) / SIZE_S)) * (size_px - self._smooth_px)
        self._last_s = pts_s
        if pts_s < self._settled_s:
            self._reference_px = max(self._reference_px, self._smooth_px)
        least_px = max(APPROACH_RATIO * self._reference_px, self._reference_px + APPROACH_PX)
        return self._smooth_px >= least_px
