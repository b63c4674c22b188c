"""Time lines of the report: the tracks of one input, and those of all inputs on one clock.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import ceil, floor

from pipeline.capture.wall_clock import utc_ns
from pipeline.replay.summary import Summary, TrackSummary

ROW_PX = 16
MIN_BAR_PERCENT = 0.4
MAX_TICKS = 8
MAX_LANES = 100  # of the common time line
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Bar:
    """A track in a time line, in percent of its width; `sighted` of `width` passed before it was confirmed.

    Attributes:
        number: of the input that it is of.
        track: the track.
        at_s: of its first sighting, in the input's annotated.mp4.
        row: of the time line.
        left: percent.
        width: percent.
        sighted: percent.
    """

    number: int
    track: TrackSummary
    at_s: float
    row: int
    left: float
    width: float
    sighted: float


@dataclass(frozen=True)
class Tick:
    """A line across a time line, at a position of 0 to 1."""

    text: str
    position: float


@dataclass(frozen=True)
class Lane:
    """An input in the common time line: its number and name, and when it was recorded, in percent."""

    number: int
    source: str
    left: float
    width: float


@dataclass(frozen=True)
class Chart:
    """A time line.

    Attributes:
        bars: the tracks.
        ticks: times.
        height_px: of all rows.
        start_s: its beginning, in the input's annotated.mp4.
        span_s: its length.
        lanes: of the common time line: the inputs, one a row.
        left_out: how many inputs it does not show.
    """

    bars: list[Bar]
    ticks: list[Tick]
    height_px: int
    start_s: float
    span_s: float
    row_px: int = ROW_PX
    lanes: tuple[Lane, ...] = ()
    left_out: int = 0


def input_chart(number: int, summary: Summary) -> Chart:
    """Arrange the tracks of an input over time, each in the first free row."""
    tracks = summary.per_track
    start_s = min(summary.start_s, *(first_s(track) for track in tracks))
    span_s = max(summary.end_s, *(track.last_s for track in tracks)) - start_s or 1.0
    row_ends: list[float] = []
    bars = []
    for track in sorted(tracks, key=lambda track: (first_s(track), track.id)):
        bar = _bar(number, track, summary, first_s(track) - start_s, span_s)
        row = next((row for row, end in enumerate(row_ends) if end <= bar.left), len(row_ends))
        row_ends[row : row + 1] = [bar.left + bar.width]
        bars.append(_in_row(bar, row))
    zero_ns = utc_ns(summary.start_time_utc) - round(summary.start_s * 1e9) if summary.start_time_utc else None
    ticks = _ticks(start_s, span_s, zero_ns)
    return Chart(bars, ticks, ROW_PX * len(row_ends) + 4, start_s - summary.start_s, span_s)


def common_chart(inputs: Sequence[tuple[int, Summary]]) -> Chart | None:
    """Arrange inputs with tracks on one clock, one a row; None: of fewer than two the wall-clock time is known."""
    timed = [
        (utc_ns(summary.start_time_utc), number, summary)
        for number, summary in inputs
        if summary.start_time_utc is not None and summary.per_track
    ]
    if len(timed) < 2:
        return None
    timed.sort(key=lambda each: each[:2])
    shown = timed[:MAX_LANES]
    zero_ns = shown[0][0]
    starts_s = [(start_ns - zero_ns) / 1e9 for start_ns, _, _ in shown]
    ends_s = [
        start + _last_s(summary) - summary.start_s for start, (_, _, summary) in zip(starts_s, shown, strict=True)
    ]
    span_s = max(ends_s) or 1.0
    lanes, bars = [], []
    for row, (start_s, end_s, (_, number, summary)) in enumerate(zip(starts_s, ends_s, shown, strict=True)):
        width = max(MIN_BAR_PERCENT, 100 * (end_s - start_s) / span_s)
        lanes.append(Lane(number, summary.source, min(100 * start_s / span_s, 100 - width), width))
        for track in summary.per_track:
            begins_s = max(0.0, start_s + first_s(track) - summary.start_s)
            bars.append(_in_row(_bar(number, track, summary, begins_s, span_s), row))
    ticks, left_out = _ticks(0.0, span_s, zero_ns), len(inputs) - len(shown)
    return Chart(bars, ticks, ROW_PX * len(lanes) + 4, 0.0, span_s, lanes=tuple(lanes), left_out=left_out)


def first_s(track: TrackSummary) -> float:
    """Return the presentation time of a track's first sighting, or, where that is unknown, of its confirmation."""
    return track.first_s if track.first_sighting_s is None else track.first_sighting_s


def _last_s(summary: Summary) -> float:
    return max(summary.end_s, *(track.last_s for track in summary.per_track), summary.start_s)


def _bar(number: int, track: TrackSummary, summary: Summary, begins_s: float, span_s: float) -> Bar:
    width = max(MIN_BAR_PERCENT, 100 * (track.last_s - first_s(track)) / span_s)
    left = min(100 * begins_s / span_s, 100 - width)
    sighted = min(width, 100 * (track.first_s - first_s(track)) / span_s)
    return Bar(number, track, max(0.0, first_s(track) - summary.start_s), 0, left, width, sighted)


def _in_row(bar: Bar, row: int) -> Bar:
    return replace(bar, row=row)


def _ticks(start_s: float, span_s: float, zero_ns: int | None) -> list[Tick]:
    """Return lines at round times: of day, UTC, where the time of the chart's zero is known, else in seconds."""
    step_s = next((step_s for step_s in TICKS_S if span_s / step_s <= MAX_TICKS), span_s)
    offset_s = (zero_ns or 0) / 1e9 % 86_400
    first, last = ceil((start_s + offset_s) / step_s), floor((start_s + offset_s + span_s) / step_s)
    times_s = [index * step_s - offset_s for index in range(first, last + 1)]
    return [Tick(_text(time_s, step_s, zero_ns), (time_s - start_s) / span_s) for time_s in times_s]


def _text(time_s: float, step_s: float, zero_ns: int | None) -> str:
    if zero_ns is None:
        return f"{time_s:.6g} s"
    moment = datetime.fromtimestamp(round(zero_ns / 1e9 + time_s, 3), UTC)
    if step_s >= 86_400:
        return f"{moment:%Y-%m-%d}"
    return f"{moment:%H:%M:%S}" + (f".{moment.microsecond // 100_000}" if step_s < 1 else "")
