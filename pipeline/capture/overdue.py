"""Overdue places: a camera of whose view the network does not process all in time.  Pure.

In: at each frame, the share of the view that has waited for too long.  Out: blind time, which is that share of the
time, and its cause.  Motion is found, and chips are judged, in all of the view: what is missed is what hovers there.
"""

from pipeline.capture.starvation import Blindness
from pipeline.types import Cause

CLEAR_S = 10.0  # without an overdue place for so long: recovered; else a scan near its bound would flutter


class OverdueMonitor:
    """Monitors one connection to a camera; all times in s of one clock.

    `cause` says whether places are, or just were, overdue.
    """

    def __init__(self, start_s: float) -> None:
        self.cause: Cause | None = None
        self._updated_s = start_s
        self._overdue_s = start_s

    def update(self, share: float, now_s: float) -> list[Blindness]:
        """Return the blind time since the last call; `share` of the view was overdue, 0 to 1."""
        elapsed_s, self._updated_s = now_s - self._updated_s, now_s
        if share > 0:
            self.cause, self._overdue_s = Cause.BUDGET, now_s
            return [Blindness(Cause.BUDGET, share * elapsed_s)]
        if now_s - self._overdue_s > CLEAR_S:
            self.cause = None
        return []
