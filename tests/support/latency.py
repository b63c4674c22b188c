"""Checker of the latency from capture to track after something happened: when it is within the objective again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

QUANTILE = 0.99
WINDOW_S = 5.0
MIN_FRAMES = 10  # in a window, of each camera


class Reading(NamedTuple):
    """Frames that were tracked so far."""

    time_s: float
    tracked: dict[str, float]  # by camera
    in_time: dict[str, float]  # likewise, within the objective

    @classmethod
    def of(cls, time_s: float, metrics: Mapping[str, float], cameras: Iterable[str], objective_s: float) -> "Reading":
        """Read the histogram, of which the objective is a boundary."""
        name = "dasnet_capture_to_track_seconds"
        tracked = {one: metrics.get(f'{name}_count{{camera="{one}"}}', 0.0) for one in cameras}
        in_time = {one: metrics.get(f'{name}_bucket{{camera="{one}",le="{objective_s}"}}', 0.0) for one in cameras}
        return cls(time_s, tracked, in_time)


def within_objective_from(readings: Sequence[Reading]) -> float | None:
    """When the first window began after which the quantile of every camera stayed within the objective; None: never.

    A window without enough frames of each camera is not within it.
    """
    since = None
    for start, end in _windows(readings):
        frames = {one: end.tracked[one] - start.tracked[one] for one in end.tracked}
        good = {one: end.in_time[one] - start.in_time[one] for one in end.tracked}
        is_good = all(frames[one] >= MIN_FRAMES and good[one] >= QUANTILE * frames[one] for one in frames)
        since = (start.time_s if since is None else since) if is_good else None
    return since


def _windows(readings: Sequence[Reading]) -> Iterable[tuple[Reading, Reading]]:
    """Each reading with the last one that is WINDOW_S before it."""
    for number, end in enumerate(readings):
        before = [reading for reading in readings[:number] if reading.time_s <= end.time_s - WINDOW_S]
        if before:
            yield before[-1], end
