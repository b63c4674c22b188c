"""Times of a stream's pictures, from 0 and rising, whatever its own time stamps do.  Pure: it reads no clock.

In: a picture's time stamp, if it has one, and, of a live stream, when it was received.  Out: its presentation time.
"""

from fractions import Fraction

MIN_STEP_S = 0.001
JUMP_S = 1.0  # a recording's stamp that falls back by more is of another clock, by less an unordered picture
LEAD_S = 5.0  # a camera's first pictures can come in a burst, from its last keyframe on; beyond this its clock is wrong


class TimestampMapper:
    """`period_s`: between pictures, where nothing else tells.  `by_count`: presentation times are count * period."""

    def __init__(self, period_s: float, by_count: bool = False) -> None:
        self._period_s, self._by_count = period_s, by_count
        self._zero_s: Fraction | None = None  # the stamp that is time 0
        self._count = 0
        self._last_s = -1.0
        self._first_received_s = self._last_received_s = 0.0
        self.next_s = 0.0  # when the next picture is expected

    def recorded(self, stamp_s: Fraction | None) -> float:
        """Of a recording, whose gaps are told as they are."""
        if self._by_count:
            return self._passed(self._count * self._period_s)
        if stamp_s is None:
            return self._passed(self.next_s)
        if self._zero_s is None:
            self._zero_s = stamp_s - Fraction(self.next_s)
        time_s = float(stamp_s - self._zero_s)
        if time_s > self._last_s:
            return self._passed(time_s)
        if self._last_s - time_s < JUMP_S:
            return self._passed(self._last_s + MIN_STEP_S)
        self._zero_s = stamp_s - Fraction(self.next_s)  # the camera set its clock back: go on from where it was
        return self._passed(self.next_s)

    def live(self, stamp_s: Fraction | None, received_s: float) -> float:
        """Of a camera: never more than LEAD_S ahead of the time since the first picture was received.

        A stamp that is missing, does not rise or runs further ahead is not believed: the time since the last picture
        was received is, and later stamps count from there.
        """
        if self._count == 0:
            self._first_received_s = self._last_received_s = received_s
        waited_s, self._last_received_s = received_s - self._last_received_s, received_s
        if stamp_s is not None and self._zero_s is not None:
            time_s = float(stamp_s - self._zero_s)
            if self._last_s < time_s <= received_s - self._first_received_s + LEAD_S:
                return self._passed(time_s)
        time_s = 0.0 if self._count == 0 else self._last_s + max(MIN_STEP_S, waited_s)
        self._zero_s = None if stamp_s is None else stamp_s - Fraction(time_s)
        return self._passed(time_s)

    def set_back(self) -> None:
        """A recording's stamps count from another time on: go on from where it was."""
        self._zero_s = None

    def leave_out(self) -> None:
        """A picture of a recording passes without being shown."""
        self._count += 1

    def _passed(self, time_s: float) -> float:
        self._count += 1
        self._last_s = time_s
        self.next_s = time_s + self._period_s
        return time_s
