"""How much of each frame the network looks at, so that no frame is dropped.  Pure; the caller hands in the time.

Frames that the worker cannot keep up with grow old in their queues.  While they do, the share of pixels is lowered at
once by as much as the age demands; while none does, it is raised in small steps until it is 1, whole frames.  So the
scan of the view becomes slower before any frame is lost, and what is followed is looked at first (`attention`).
"""

from pipeline.config.models import MIN_SHARE

STEP_S = 0.25  # between two changes: what the last one does must show first
HIGH_AGE = 0.25  # of the latency objective: frames that are older when they are started show overload
LOW_AGE = 0.12  # likewise, while there is room
LEAST_CUT, MOST_CUT = 0.85, 0.5  # of the share in one step
RAISE = 1.05


class ShareControl:
    """Decides the share of pixels that the network may look at.

    Args:
        objective_s: latency objective from capture to track.
        fixed: a share that is kept, whatever happens; None: as the load allows.

    Attributes:
        share: at present.
    """

    def __init__(self, objective_s: float, fixed: float | None = None) -> None:
        self.share = fixed or 1.0
        self._is_fixed = fixed is not None
        self._high_s, self._low_s = HIGH_AGE * objective_s, LOW_AGE * objective_s
        self._oldest_s = 0.0  # since the last change
        self._changed_s: float | None = None

    def update(self, age_s: float, now_s: float) -> float:
        """Return the share for the next frame.

        Args:
            age_s: of a live frame that is started now: the time since it was received.
            now_s: on any steady clock.
        """
        self._oldest_s = max(self._oldest_s, age_s)
        if self._is_fixed:
            return self.share
        if self._changed_s is None:
            self._changed_s = now_s
        is_due = now_s - self._changed_s >= STEP_S
        if is_due and self._oldest_s > self._high_s:
            cut = min(max(self._high_s / self._oldest_s, MOST_CUT), LEAST_CUT)
            self._change(max(MIN_SHARE, cut * self.share), now_s)
        elif is_due:
            self._change(min(1.0, RAISE * self.share) if self._oldest_s < self._low_s else self.share, now_s)
        return self.share

    def _change(self, share: float, now_s: float) -> None:
        self.share, self._oldest_s, self._changed_s = share, 0.0, now_s
