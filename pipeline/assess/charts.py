"""Curves of the report, as coordinates for inline SVG.  Pure.

In: values.  Out: charts of WIDTH x HEIGHT units; a template draws them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pipeline.assess.figures import Figures
from pipeline.assess.observations import MAX_LOG_ODDS, CameraObservation

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 548, 14, 204
COLOURS = ("#7cb7ff", "#4fc38a", "#ffb454", "#d2a6ff", "#ff8f8f", "#8fe3e3")
TICKS = 5
MAX_POINTS = 300  # of a line
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    position: float
    text: str


@dataclass(frozen=True)
class Line:
    """A curve, as the `points` of an SVG polyline."""

    name: str
    colour: str
    points: str
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """A value with its bounds, as a vertical line with a dot."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One chart; empty `note`: there is something to draw."""

    title: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    note: str = ""


class _Axis:
    """A linear axis from `low` to at least `high`, with round ticks, over positions `start` to `end`."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start, self._end = low, start, end
        step = _step((high - low) / TICKS)
        count = max(1, -(-(high - low) // step))
        self._span = count * step
        self.ticks = [Tick(self.at(low + i * step), f"{low + i * step:g}") for i in range(round(count) + 1)]

    def at(self, value: float) -> float:
        return round(self._start + (value - self._low) / self._span * (self._end - self._start), 1)


def detection_chart(figures: Figures) -> Chart:
    """Return the probability of detection against apparent size, with 95% bounds."""
    names = [
        f"{one.from_px:g} to {one.to_px:g} px" if one.to_px < 1e9 else f"{one.from_px:g} px and more"
        for one in figures.by_size
    ]
    centres = [round(LEFT + (RIGHT - LEFT) * (index + 0.5) / len(names), 1) for index in range(len(names))]
    axis = _Axis(0, 1, BOTTOM, TOP)
    bars = [
        Bar(x, axis.at(one.probability), axis.at(one.low), axis.at(one.high), f"{one.detected} of {one.encounters}")
        for x, one in zip(centres, (one.detection for one in figures.by_size), strict=True)
        if one.probability is not None
    ]
    return Chart(
        "Probability of detection by apparent size",
        "apparent size of the seeded drone",
        [Tick(x, name) for x, name in zip(centres, names, strict=True)],
        axis.ticks,
        bars=bars,
        note="" if bars else "No encounter yet.",
    )


def alarm_chart(cameras: Sequence[CameraObservation]) -> Chart:
    """Return the cumulative alarms over hours of observation, per camera."""
    seen = [camera for camera in cameras if camera.hours]
    x_axis = _Axis(0, max((camera.hours for camera in seen), default=1.0), LEFT, RIGHT)
    y_axis = _Axis(0, max([1, *(len(camera.alarms) for camera in seen)]), BOTTOM, TOP)
    lines = []
    for camera, colour in zip(seen, COLOURS * len(seen), strict=False):
        hours = [0.0, *(alarm.time_s / 3600 for alarm in camera.alarms), camera.hours]
        counts = [*range(len(camera.alarms) + 1), len(camera.alarms)]
        points = [(x_axis.at(hour), y_axis.at(count)) for hour, count in zip(hours, counts, strict=True)]
        lines.append(Line(camera.id, colour, _steps(points)))
    note = "" if lines else "No camera gave a frame."
    return Chart("Alarms so far", "hours of observation", x_axis.ticks, y_axis.ticks, lines, note=note)


def threshold_chart(figures: Figures) -> Chart:
    """Return alarms an hour, with their bound, and the probability of detection against the threshold."""
    title, label = "What a higher threshold would leave", "log-odds of a track's score below which it raises no alert"
    points = figures.curve
    if len(points) < 2:
        return Chart(title, label, [], [], note="No alarm yet: nothing to leave out.")
    low = math.floor(points[1].log_odds - 0.5)
    x_axis = _Axis(low, min(MAX_LOG_ODDS, points[-1].log_odds + 1), LEFT, RIGHT)
    y_axis = _Axis(0, max(point.at_most for point in points), BOTTOM, TOP)
    share = _Axis(0, 1, BOTTOM, TOP)
    xs = [x_axis.at(max(low, point.log_odds)) for point in points]
    lines = [
        Line(
            "alarms an hour",
            COLOURS[2],
            _steps([(x, y_axis.at(p.alarms_per_hour)) for x, p in zip(xs, points, strict=True)]),
        ),
        Line(
            "at most, 95%",
            COLOURS[2],
            _steps([(x, y_axis.at(p.at_most)) for x, p in zip(xs, points, strict=True)]),
            True,
        ),
    ]
    detected = [(x, share.at(p.probability)) for x, p in zip(xs, points, strict=True) if p.probability is not None]
    if detected:
        lines.append(Line("probability of detection (0 to 1)", COLOURS[0], _steps(detected)))
    return Chart(title, label, x_axis.ticks, y_axis.ticks, lines)


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """Return a staircase through the points, thinned where there are many."""
    if len(points) > MAX_POINTS:
        stride = -(-len(points) // MAX_POINTS)
        points = [*points[:-1:stride], points[-1]]
    corners = [points[0]]
    for before, after in pairwise(points):
        corners += [(after[0], before[1]), after]
    return " ".join(f"{x:g},{y:g}" for x, y in corners)


def _step(width: float) -> float:
    """Return the smallest round number that is not below."""
    power = 10.0 ** (len(f"{width:.0f}") - 1) if width >= 1 else 10.0 ** -(len(f"{1 / width:.0f}"))
    return next(power * step for step in (*STEPS, 20.0, 50.0, 100.0) if power * step >= width * (1 - 1e-9))
