"""How much of each frame the network processes, so that no frame is dropped.  Pure; the caller hands in the time.

Frames that the worker cannot keep up with grow old in their queues, and are then replaced by newer ones.  When that
happens the share of pixels is lowered by as much as was lost; it is raised in steps while the worker has time left, so
that it settles where no frame is lost.  So the scan of the view becomes slower before any frame is lost for long, and
targets are processed first (`scan`).  Where even the least share is too much, fewer motion candidates are judged; that
is the first to be undone.
"""

import math

from pipeline.config.model import MIN_SHARE
from pipeline.segmentation.judging import MAX_JUDGED

STEP_S = 0.5  # between two changes: what the last one does must show first
HIGH_AGE = 0.3  # of the latency objective: frames that are older when they are started will soon be replaced
LEAST_CUT, MOST_CUT = 0.85, 0.5  # of the share in one step
FREE_BUSY = 0.8  # a worker that is busy for less of the time has time left ...
WANTED_BUSY = 0.87  # ... and gets work for so much of it ...
MOST_RAISE = 1.25  # ... in steps of at most this
RETRY_S = 60.0  # without a loss; then more is tried, however busy the worker is: it may be waiting for the device
RETRY_RAISE = 1.05
MOTION_STEPS = (MAX_JUDGED, 6, 3, 2)  # motion candidates of a frame that are judged, at the least share


class ShareControl:
    """Decides the share of pixels that the network may process.

    Args:
        objective_s: latency objective from capture to track.
        fixed: a share that is kept, whatever happens; None: as the load allows.

    Attributes:
        share: at present.
    """

    def __init__(self, objective_s: float, fixed: float | None = None) -> None:
        self.share = fixed or 1.0
        self._motion_step = 0
        self._is_fixed = fixed is not None
        self._high_s = HIGH_AGE * objective_s
        self._lost_s = -math.inf
        self._begin(-math.inf)

    def _begin(self, now_s: float) -> None:
        self._began_s = now_s
        self._taken = self._replaced = 0
        self._oldest_s = self._idle_s = 0.0

    def idle(self, seconds: float) -> None:
        """Take note of time in which the worker had nothing to do."""
        self._idle_s += seconds

    def update(self, replaced: int, age_s: float, now_s: float) -> float:
        """Return the share for the next frame.

        Args:
            replaced: frames that this one replaced, for they had waited for too long.
            age_s: time since it was received.
            now_s: on any steady clock.
        """
        self._taken, self._replaced = self._taken + 1, self._replaced + replaced
        self._oldest_s = max(self._oldest_s, age_s)
        elapsed_s = now_s - self._began_s
        if self._is_fixed or elapsed_s < STEP_S:
            return self.share
        if math.isfinite(elapsed_s):
            self._change(self._factor(elapsed_s, now_s))
        else:
            self._lost_s = now_s
        self._begin(now_s)
        return self.share

    @property
    def max_motion(self) -> int:
        """Return how many motion candidates of a frame may be judged."""
        return MOTION_STEPS[self._motion_step]

    def _change(self, factor: float) -> None:
        """Change the share by a factor; where it is at its least, the number of motion candidates."""
        if self.share <= MIN_SHARE and factor < 1:
            self._motion_step = min(self._motion_step + 1, len(MOTION_STEPS) - 1)
        elif self._motion_step and factor > 1:
            self._motion_step -= 1
        else:
            self.share = min(max(self.share * factor, MIN_SHARE), 1.0)

    def _factor(self, elapsed_s: float, now_s: float) -> float:
        if self._replaced or self._oldest_s > self._high_s:
            self._lost_s = now_s
            kept = self._taken / (self._taken + self._replaced)
            return min(max(kept, MOST_CUT), LEAST_CUT)
        busy = max(1 - self._idle_s / elapsed_s, 0.01)
        if busy < FREE_BUSY:
            return min(WANTED_BUSY / busy, MOST_RAISE)
        if now_s - self._lost_s >= RETRY_S:
            self._lost_s = now_s
            return RETRY_RAISE
        return 1.0
