"""Why a connected camera is blind, and for how long: faults of its image, or frames that are not segmented.  Pure.

In: its intact frames, and at each frame what the ledger says of segmentation and losses, and which share of the view
the network did not process in time.  Out: blind time to count.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.capture.image_health import ImageHealthMonitor
from pipeline.capture.overdue import OverdueMonitor
from pipeline.capture.starvation import Blindness, StarvationMonitor
from pipeline.types import Cause


class CameraHealth:
    """Monitors one connection to a live camera."""

    def __init__(self, start_s: float, lost: Mapping[Cause, int]) -> None:
        """Start at a time of the clock of `update_segmentation`, with the losses so far."""
        self._image_health = ImageHealthMonitor()
        self._starvation = StarvationMonitor(start_s, lost)
        self._overdue = OverdueMonitor(start_s)
        self._image_cause: Cause | None = None
        self._counted_until_s = 0.0

    @property
    def cause(self) -> Cause | None:
        """Return why the camera is blind now, or partly blind; None: it is not."""
        return self._image_cause or self._starvation.cause or self._overdue.cause

    def update_image(self, pixels: NDArray[np.uint8], pts_s: float) -> list[Blindness]:
        """Judge an intact frame; return the blind time that a fault of the image adds."""
        fault = self._image_health.update(pixels, pts_s)
        cause = fault.cause if fault else None
        if cause is not self._image_cause:
            self._counted_until_s = fault.since_s if fault else pts_s
            self._image_cause = cause
        if cause is None:
            return []
        duration_s, self._counted_until_s = pts_s - self._counted_until_s, pts_s
        return [Blindness(cause, duration_s)]

    def update_segmentation(
        self, segmented_s: float, lost: Mapping[Cause, int], overdue: float, now_s: float
    ) -> list[Blindness]:
        """Return the blind time that a lack of segmented frames adds, or else the overdue share of the view, 0 to 1."""
        found = self._starvation.update(segmented_s, lost, now_s)
        is_blind = self._image_cause or self._starvation.cause
        return found + self._overdue.update(0.0 if is_blind else overdue, now_s)
