"""Whether a camera whose pictures come is searched: drops and failures that add up to blindness.  Pure.

In: at each picture, when the camera was last searched and how many of its frames were lost so far, by cause.  Out: for
how much longer it was blind, and why.  A camera without losses is never blind here, however seldom it sends.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.types import Cause

BLIND_S = 2.0  # unsearched for longer than this while frames were lost: blind, from the last search on
CLEAR_S = 5.0  # without such a time, until the blindness is over; longer than BLIND_S, or it would flutter


@dataclass(frozen=True)
class Blindness:
    cause: Cause
    duration_s: float  # what this call adds


class StarvationMonitor:
    """One a connection to a camera.  Times are of one clock, in s."""

    def __init__(self, start_s: float, lost: Mapping[Cause, int]) -> None:
        self._since_s = start_s  # the last search
        self._counted_s = start_s  # up to here blindness is counted
        self._lost = dict(lost)  # as of the last search
        self._searched = False
        self._blind_s = start_s  # when blindness was last seen
        self.cause: Cause | None = None  # why it is blind now; never before the first search: a start is no event

    def update(self, searched_s: float, lost: Mapping[Cause, int], now_s: float) -> list[Blindness]:
        """What is to be added to the account since the last call."""
        found = []
        if searched_s > self._since_s:
            found.append(self._until(searched_s, lost))
            self._since_s = self._counted_s = searched_s
            self._lost = dict(lost)
            self._searched = True
        found.append(self._until(now_s, lost))
        if now_s - self._blind_s > CLEAR_S:
            self.cause = None
        return [blindness for blindness in found if blindness is not None]

    def _until(self, end_s: float, lost: Mapping[Cause, int]) -> Blindness | None:
        """The cause is what took most of the frames since the last search."""
        new = {cause: count - self._lost.get(cause, 0) for cause, count in lost.items()}
        cause = max(new, key=lambda cause: new[cause])
        if end_s - self._since_s <= BLIND_S or end_s <= self._counted_s or not new[cause]:
            return None
        blindness = Blindness(cause, end_s - self._counted_s)
        self._counted_s = self._blind_s = end_s
        if self._searched:
            self.cause = cause
        return blindness
