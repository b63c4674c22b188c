"""How far another host's monotonic clock is ahead of this one's.  Pure.

In: when the other host was asked, its time, when the reply came.  The reply with the shortest round trip bounds the
error best: by half of that (the four time stamps of NTP, RFC 5905 section 8, with the reply made at once).
"""

from collections import deque
from enum import Enum, auto

from pipeline.timeouts import CLOCK_REQUEST_PERIOD_S, INFERENCE_HOST_TIMEOUT_S

MAX_REPLIES = 30  # kept; clocks drift apart by some 50 us a second at most


class ClockOffset:
    """Estimate of the offset from the last replies."""

    def __init__(self) -> None:
        self._replies: deque[tuple[int, int]] = deque(maxlen=MAX_REPLIES)  # round trip, offset; ns

    def update(self, asked_ns: int, replied_ns: int, received_ns: int) -> None:
        """Add a reply: asked and received on this host's clock, `replied_ns` on the other's."""
        if received_ns >= asked_ns:
            self._replies.append((received_ns - asked_ns, replied_ns - (asked_ns + received_ns) // 2))

    @property
    def ns(self) -> int | None:
        """The offset; None before the first reply."""
        return min(self._replies)[1] if self._replies else None


class Reachability(Enum):
    """A change in whether the other host replies."""

    LOST = auto()
    RECOVERED = auto()


class ClockExchange:
    """When to ask the other host for its time, and whether it replies."""

    def __init__(self, now_s: float) -> None:
        self._offset = ClockOffset()
        self._requested_s = 0.0
        self._replied_s = now_s
        self._is_lost = False

    @property
    def offset_ns(self) -> int | None:
        """How far the other host's clock is ahead; None before its first reply."""
        return self._offset.ns

    def request_due(self, now_s: float) -> bool:
        """Return whether to ask now; the time of the last request is then `now_s`."""
        if now_s - self._requested_s < CLOCK_REQUEST_PERIOD_S:
            return False
        self._requested_s = now_s
        return True

    def replied(self, asked_ns: int, replied_ns: int, now_ns: int) -> Reachability | None:
        """Add a reply; return RECOVERED where it is the first after a loss."""
        self._offset.update(asked_ns, replied_ns, now_ns)
        self._replied_s = now_ns / 1e9
        recovered, self._is_lost = self._is_lost, False
        return Reachability.RECOVERED if recovered else None

    def check(self, now_s: float) -> Reachability | None:
        """Return LOST once, after INFERENCE_HOST_TIMEOUT_S without a reply."""
        if self._is_lost or now_s - self._replied_s < INFERENCE_HOST_TIMEOUT_S:
            return None
        self._is_lost = True
        return Reachability.LOST
