"""Presentation times of a stream's frames, rising from 0, whatever its own time stamps do.  Pure: it reads no clock.

In: a frame's time stamp, if it has one, and, of a live stream, when it was received.  Out: its presentation time.
"""

from fractions import Fraction

MIN_STEP_S = 0.001
MAX_REORDER_S = 1.0  # a recording's time stamp that falls back by more means that its clock was set back
MAX_LEAD_S = 5.0  # a camera may first send a burst, from its last keyframe on; a larger lead is a clock error


class TimestampMapper:
    """Maps the time stamps of one stream.

    Args:
        period_s: time between frames where there are no time stamps.
        by_count: presentation times are count * period.
    """

    def __init__(self, period_s: float, by_count: bool = False) -> None:
        self._period_s, self._by_count = period_s, by_count
        self._zero_s: Fraction | None = None  # the time stamp of time 0
        self._count = 0
        self._last_s = -1.0
        self._first_received_s = self._last_received_s = 0.0
        self.next_s = 0.0  # expected time of the next frame

    def recorded_time(self, stamp_s: Fraction | None) -> float:
        """Return the time of a recorded frame; gaps stay."""
        if self._by_count:
            return self._passed(self._count * self._period_s)
        if stamp_s is None:
            return self._passed(self.next_s)
        if self._zero_s is None:
            self._zero_s = stamp_s - Fraction(self.next_s)
        time_s = float(stamp_s - self._zero_s)
        if time_s > self._last_s:
            return self._passed(time_s)
        if self._last_s - time_s < MAX_REORDER_S:
            return self._passed(self._last_s + MIN_STEP_S)
        self._zero_s = stamp_s - Fraction(self.next_s)  # the clock was set back: continue from the newest frame
        return self._passed(self.next_s)

    def live_time(self, stamp_s: Fraction | None, received_s: float) -> float:
        """Return the time of a live frame: at most MAX_LEAD_S ahead of the time since the first frame was received.

        A time stamp that is missing, does not rise or leads by more is replaced by the time since the last frame was
        received, and later time stamps count from there.
        """
        if self._count == 0:
            self._first_received_s = self._last_received_s = received_s
        waited_s, self._last_received_s = received_s - self._last_received_s, received_s
        if stamp_s is not None and self._zero_s is not None:
            time_s = float(stamp_s - self._zero_s)
            if self._last_s < time_s <= received_s - self._first_received_s + MAX_LEAD_S:
                return self._passed(time_s)
        time_s = 0.0 if self._count == 0 else self._last_s + max(MIN_STEP_S, waited_s)
        self._zero_s = None if stamp_s is None else stamp_s - Fraction(time_s)
        return self._passed(time_s)

    def reset(self) -> None:
        """Continue from the newest frame: the recording's clock was set back."""
        self._zero_s = None

    def skip(self) -> None:
        """Count a frame of a recording that is not decoded."""
        self._count += 1

    def _passed(self, time_s: float) -> float:
        self._count += 1
        self._last_s = time_s
        self.next_s = time_s + self._period_s
        return time_s
