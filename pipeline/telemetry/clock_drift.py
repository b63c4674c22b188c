"""Offset and drift between a camera's clock and this host's.  Pure.

In: a frame's time by the camera's clock (RTCP), and the time of its reception.  Frames arrive late but never early:
the smallest difference within a window is the offset, including the delay of an idle network.  The drift is the slope
through the offsets of the last minutes by the Theil-Sen estimator (Theil 1950, Sen 1968): the median over all pairs,
which is robust against short congestion.
"""

from collections import deque
from itertools import combinations
from statistics import median

WINDOW_S = 5.0
MAX_OFFSETS = 60  # five minutes
MIN_OFFSETS = 6  # for a drift estimate
STEP_S = 0.5  # a clock that jumps by more was set: earlier offsets are discarded


class ClockDriftMonitor:
    """Estimate the clock offset and drift of one camera."""

    def __init__(self) -> None:
        self._offsets: deque[tuple[float, float]] = deque(maxlen=MAX_OFFSETS)  # time, offset; s
        self._window_start_s = 0.0
        self._min_s = 0.0
        self.offset_s: float | None = None  # this host's clock minus the camera's; None: unknown
        self.drift: float | None = None  # growth of the offset in s per s; None: not enough offsets yet

    def update(self, offset_s: float, now_s: float) -> None:
        """Add the offset of one frame, received at `now_s` (monotonic)."""
        if self.offset_s is None or offset_s < self.offset_s - STEP_S:
            self._reset(offset_s, now_s)
            return
        self._min_s = min(self._min_s, offset_s)
        if now_s - self._window_start_s < WINDOW_S:
            return
        if self._min_s > self.offset_s + STEP_S:  # for a whole window: the clock was set, the frames are not late
            self._reset(self._min_s, now_s)
            return
        self._offsets.append((now_s, self._min_s))
        self.offset_s = self._min_s
        self._window_start_s, self._min_s = now_s, offset_s
        if len(self._offsets) >= MIN_OFFSETS:
            pairs = combinations(self._offsets, 2)
            self.drift = median((later - earlier) / (late_s - early_s) for (early_s, earlier), (late_s, later) in pairs)

    def _reset(self, offset_s: float, now_s: float) -> None:
        self._offsets.clear()
        self._window_start_s, self._min_s = now_s, offset_s
        self.offset_s, self.drift = offset_s, None
