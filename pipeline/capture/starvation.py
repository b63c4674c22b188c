"""Starvation: a camera whose frames arrive but are not segmented, because drops and failures add up.  Pure.

In: at each frame, when the camera was last segmented and how many of its frames were lost so far, by cause.  Out:
further blind time and its cause.  A camera without losses is never starved, however low its frame rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.types import Cause

BLIND_S = 2.0  # without segmentation for longer than this while frames were lost: blind since the last segmented frame
CLEAR_S = 5.0  # without starvation for so long: recovered; must exceed BLIND_S, or the state would flutter


@dataclass(frozen=True)
class Blindness:
    """Blind time to add to the ledger."""

    cause: Cause
    duration_s: float


class StarvationMonitor:
    """Monitors one connection to a camera; all times in s of one clock.

    `cause` says why the camera is starved now.  It stays None until a first frame was segmented: a slow start is no
    event.
    """

    def __init__(self, start_s: float, lost: Mapping[Cause, int]) -> None:
        self.cause: Cause | None = None
        self._segmented_s = start_s
        self._counted_until_s = start_s
        self._lost_when_segmented = dict(lost)
        self._was_segmented = False
        self._last_blind_s = start_s

    def update(self, segmented_s: float, lost: Mapping[Cause, int], now_s: float) -> list[Blindness]:
        """Return the blind time since the last call."""
        found = []
        if segmented_s > self._segmented_s:
            found.append(self._until(segmented_s, lost))
            self._segmented_s = self._counted_until_s = segmented_s
            self._lost_when_segmented = dict(lost)
            self._was_segmented = True
        found.append(self._until(now_s, lost))
        if now_s - self._last_blind_s > CLEAR_S:
            self.cause = None
        return [blindness for blindness in found if blindness is not None]

    def _until(self, end_s: float, lost: Mapping[Cause, int]) -> Blindness | None:
        """Return the blind time up to then; its cause is the one of most losses since the last segmented frame."""
        new = {cause: count - self._lost_when_segmented.get(cause, 0) for cause, count in lost.items()}
        cause = max(new, key=lambda cause: new[cause])
        if end_s - self._segmented_s <= BLIND_S or end_s <= self._counted_until_s or not new[cause]:
            return None
        blindness = Blindness(cause, end_s - self._counted_until_s)
        self._counted_until_s = self._last_blind_s = end_s
        if self._was_segmented:
            self.cause = cause
        return blindness
