"""Frames of one camera that wait for credit.  Pure.

When segmentation is late for once, a few frames wait, and none is lost.  When it stays behind, only the newest frame
waits: each that is searched is then as young as can be.  A frame tells the time by when it was received.
"""

from collections import deque

from pipeline.transport.wire import Stamps
from pipeline.types import Frame

BRIDGED = 8  # frames that may wait, while the oldest of them is young enough
CALM_NS = 500_000_000  # after a loss, only the newest waits for so long


class FrameQueue:
    def __init__(self, bridge_s: float) -> None:
        """`bridge_s`: a frame that is older does not wait behind others."""
        self._bridge_ns = round(bridge_s * 1e9)
        self._waiting: deque[tuple[Frame, Stamps]] = deque()
        self._calm_ns = 0  # until then only the newest waits

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: Frame, stamps: Stamps) -> int:
        """Returns how many older frames it replaces."""
        now_ns = frame.ref.received_mono_ns
        replaced = self.clear() if self._is_behind(now_ns) else 0
        if replaced:
            self._calm_ns = now_ns + CALM_NS
        self._waiting.append((frame, stamps))
        return replaced

    def take(self) -> tuple[Frame, Stamps]:
        """The oldest.  Raises IndexError where none waits."""
        return self._waiting.popleft()

    def clear(self) -> int:
        """Returns how many frames there were."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def _is_behind(self, now_ns: int) -> bool:
        if now_ns < self._calm_ns or len(self._waiting) == BRIDGED:
            return True
        return bool(self._waiting) and now_ns - self._waiting[0][0].ref.received_mono_ns > self._bridge_ns
