"""How far a camera's own clock is from this host's, and how fast they drift apart.  Pure.

In: when a frame was taken by the camera's clock (RTCP), and when it came here.  A frame is never early, but often late:
the least difference within a while is the offset, the way of a packet on an idle network included.  The drift is the
slope through the offsets of the last minutes, as Theil (1950) and Sen (1968) have it: the median over all pairs, which
a few busy moments do not bend.
"""

from collections import deque
from itertools import combinations
from statistics import median

WHILE_S = 5.0
KEPT = 60  # offsets: five minutes
ENOUGH = 6  # of them for a drift
STEP_S = 0.5  # a clock that jumps by more was set: what was known before says nothing about its drift


class ClockDriftMonitor:
    def __init__(self) -> None:
        self._offsets: deque[tuple[float, float]] = deque(maxlen=KEPT)  # when, how much; s
        self._since_s = 0.0
        self._least_s = 0.0
        self.offset_s: float | None = None  # this host's clock less the camera's; None: not known
        self.drift: float | None = None  # s by which that grows each s; None: not known yet

    def update(self, offset_s: float, now_s: float) -> None:
        """`offset_s` of one frame, which came at `now_s` (monotonic)."""
        if self.offset_s is None or offset_s < self.offset_s - STEP_S:
            self._begin(offset_s, now_s)
            return
        self._least_s = min(self._least_s, offset_s)
        if now_s - self._since_s < WHILE_S:
            return
        if self._least_s > self.offset_s + STEP_S:  # all of a while: not merely late
            self._begin(self._least_s, now_s)
            return
        self._offsets.append((now_s, self._least_s))
        self.offset_s = self._least_s
        self._since_s, self._least_s = now_s, offset_s
        if len(self._offsets) >= ENOUGH:
            pairs = combinations(self._offsets, 2)
            self.drift = median((later - earlier) / (late_s - early_s) for (early_s, earlier), (late_s, later) in pairs)

    def _begin(self, offset_s: float, now_s: float) -> None:
        self._offsets.clear()
        self._since_s, self._least_s = now_s, offset_s
        self.offset_s, self.drift = offset_s, None
