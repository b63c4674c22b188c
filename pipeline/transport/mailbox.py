"""Where a live camera's frames wait for credit.  Pure.

The newest one waits, and replaces the one before it.  If that has only just come, and none has been replaced lately,
both wait: what can be made up for after a moment's stall costs no frame, but YOUNG_S of latency at most until it is.
"""

from collections import deque
from typing import Generic, TypeVar

LATELY_S, YOUNG_S = 1.0, 0.1

T = TypeVar("T")


class Mailbox(Generic[T]):
    def __init__(self) -> None:
        self._waiting: deque[tuple[float, T]] = deque()  # with when they came
        self._replaced_s = float("-inf")  # when one was, at last

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: T, now_s: float) -> int:
        """Returns how many it replaced."""
        self._waiting.append((now_s, frame))
        patient = now_s - self._replaced_s >= LATELY_S and now_s - self._waiting[0][0] < YOUNG_S
        room = 2 if patient else 1
        replaced = max(0, len(self._waiting) - room)
        if replaced:
            self._replaced_s = now_s
        for _ in range(replaced):
            self._waiting.popleft()
        return replaced

    def take(self) -> T:
        """The one that has waited longest."""
        return self._waiting.popleft()[1]

    def clear(self) -> int:
        """Returns how many there were."""
        count = len(self._waiting)
        self._waiting.clear()
        return count
