"""How far another host's monotonic clock is ahead of this one's.  Pure.

In: when it was asked, what it said, when the answer came.  The answer that took least bounds the error best: by half
the time that it took (the four stamps of NTP, RFC 5905 section 8, with the answer made at once).
"""

from collections import deque

KEPT = 30  # answers; clocks drift apart by some 50 us a second at most


class ClockOffset:
    def __init__(self) -> None:
        self._answers: deque[tuple[int, int]] = deque(maxlen=KEPT)  # how long it took, the offset; ns

    def update(self, asked_ns: int, said_ns: int, came_ns: int) -> None:
        if came_ns >= asked_ns:
            self._answers.append((came_ns - asked_ns, said_ns - (asked_ns + came_ns) // 2))

    @property
    def ns(self) -> int | None:
        """None: nothing is known yet."""
        return min(self._answers)[1] if self._answers else None
