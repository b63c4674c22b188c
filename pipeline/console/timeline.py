"""What happened to each camera over a day: its alerts, and when it was blind and why.  Pure.

In: counts of alerts, and the events of a camera's state.  Out: a time line per camera.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from pipeline.store.alert import AlertCount
from pipeline.types import Cause, Event, EventKind

DAY_S = 86400.0
STEP_S = 300.0  # in which alerts are counted
DRAWN_GAP_S = 30.0  # shorter ones between intervals of one cause are not drawn
FLAPPING_GAP_S = 600.0  # a camera that sees for a shorter time between two blind intervals is flapping


class BlindInterval(msgspec.Struct):
    """A time in which a camera was blind or down."""

    since_utc_ns: int
    until_utc_ns: int
    cause: Cause


class BlindSpell(msgspec.Struct, frozen=True):
    """One line about a camera: a blind interval, or many in succession."""

    since_utc_ns: int
    until_utc_ns: int
    times: int
    blind_s: float
    causes: dict[Cause, int]  # how many intervals had each
    is_open: bool  # blind at the end of the time line


class CameraTimeline(msgspec.Struct, frozen=True):
    """A day of one camera."""

    camera: str
    alerts: list[AlertCount]
    blind: list[BlindInterval]
    spells: list[BlindSpell]  # oldest first


class Timeline(msgspec.Struct, frozen=True):
    """Reply with a day of every camera."""

    since_utc_ns: int
    until_utc_ns: int
    step_s: float
    cameras: list[CameraTimeline]


def camera_timeline(
    camera: str, counts: Iterable[AlertCount], states: Sequence[Event], since_utc_ns: int, until_utc_ns: int
) -> CameraTimeline:
    """Return the time line of a camera.

    Args:
        camera: its id.
        counts: of all cameras.
        states: events of its state, oldest first; the first may be older than the time line.
        since_utc_ns: start of the time line.
        until_utc_ns: its end.
    """
    own = [count for count in counts if count.camera == camera]
    blind = list(_intervals(states, since_utc_ns, until_utc_ns))
    spells = [_spell(spell, until_utc_ns) for spell in _joined(blind, FLAPPING_GAP_S)]
    return CameraTimeline(camera, own, list(_drawn(blind)), spells)


def _intervals(states: Sequence[Event], since_ns: int, until_ns: int) -> Iterator[BlindInterval]:
    ends_ns = [*(event.time_utc_ns for event in states[1:]), until_ns]
    for event, end_ns in zip(states, ends_ns, strict=False):
        start_ns = max(event.time_utc_ns, since_ns)
        if event.kind is not EventKind.CAMERA_UP and end_ns > start_ns:
            cause = event.cause or Cause.OFFLINE
            yield BlindInterval(start_ns, end_ns, cause)


def _joined(blind: Sequence[BlindInterval], gap_s: float) -> Iterator[list[BlindInterval]]:
    """Yield runs of intervals with gaps of at most this length."""
    run: list[BlindInterval] = []
    for interval in blind:
        if run and interval.since_utc_ns - run[-1].until_utc_ns > gap_s * 1e9:
            yield run
            run = []
        run.append(interval)
    if run:
        yield run


def _drawn(blind: Sequence[BlindInterval]) -> Iterator[BlindInterval]:
    for _, same in groupby(blind, lambda interval: interval.cause):
        for run in _joined(list(same), DRAWN_GAP_S):
            yield BlindInterval(run[0].since_utc_ns, run[-1].until_utc_ns, run[0].cause)


def _spell(run: Sequence[BlindInterval], until_ns: int) -> BlindSpell:
    starts = [0, *(i for i in range(1, len(run)) if run[i].since_utc_ns > run[i - 1].until_utc_ns)]
    blind_ns = sum(interval.until_utc_ns - interval.since_utc_ns for interval in run)
    causes = Counter(interval.cause for interval in run)
    first_ns, last_ns = run[0].since_utc_ns, run[-1].until_utc_ns
    return BlindSpell(first_ns, last_ns, len(starts), blind_ns / 1e9, dict(causes), last_ns == until_ns)
