"""Queue of one camera's frames that wait for credit.  Pure.

Short inference stalls are absorbed by an eight-frame queue; under sustained overload the newest frame wins and older
ones are dropped, so that each processed frame is as young as can be.  Time is that of the frames' reception.
"""

from collections import deque

from pipeline.transport.wire import Stamps
from pipeline.types import Frame

MAX_FRAMES = 8  # that may wait, while the oldest of them is young enough
RECOVERY_NS = 500_000_000  # after a drop only the newest frame waits for this long


class FrameQueue:
    """Bounded queue that drops the old frames under overload."""

    def __init__(self, max_age_s: float) -> None:
        """Create an empty queue in which frames older than `max_age_s` do not wait behind others."""
        self._max_age_ns = round(max_age_s * 1e9)
        self._waiting: deque[tuple[Frame, Stamps]] = deque()
        self._overloaded_until_ns = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: Frame, stamps: Stamps) -> int:
        """Append a frame and return how many older ones it replaces."""
        now_ns = frame.ref.received_mono_ns
        replaced = self.clear() if self._is_overloaded(now_ns) else 0
        if replaced:
            self._overloaded_until_ns = now_ns + RECOVERY_NS
        self._waiting.append((frame, stamps))
        return replaced

    def take(self) -> tuple[Frame, Stamps]:
        """Remove and return the oldest frame.  Raise IndexError where none waits."""
        return self._waiting.popleft()

    def clear(self) -> int:
        """Remove all frames and return how many there were."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def _is_overloaded(self, now_ns: int) -> bool:
        if now_ns < self._overloaded_until_ns or len(self._waiting) == MAX_FRAMES:
            return True
        return bool(self._waiting) and now_ns - self._waiting[0][0].ref.received_mono_ns > self._max_age_ns
