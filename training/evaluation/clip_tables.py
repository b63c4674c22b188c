"""Markdown tables of clip results: figures with bounds by group, by apparent size, by scale, and before and after."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.bounds import poisson_rate
from training.evaluation.bootstrap import Bounds
from training.evaluation.clip_metrics import RATIOS, size_bins
from training.evaluation.clip_results import (
    PROPORTIONS,
    ClipResult,
    Difference,
    OfSize,
    by_size,
    distinct,
    figure,
    grouped,
    total,
)

PER_FRAME = ("precision", "recall", "F1", "F1 IoU .5")
DRONE_HEAD = ("found", *PER_FRAME, "delay s", "id switches")
ONE_SIDED = 0.9  # a two-sided interval whose upper bound holds on one side with 95% confidence


def tables(results: Iterable[ClipResult]) -> str:
    """Return all tables of an evaluation, those of the range ladder where there are shrunk clips."""
    results = list(results)
    drones = [one for one in results if one.metrics.drone_clips]
    recorded = distinct(grouped(one for one in drones if one.scale == 1))
    negative = distinct(grouped(one for one in results if one.metrics.negative_clips))
    parts = [drone_table(recorded), *_size_tables("drones", recorded), negative_table(negative)]
    if any(one.scale != 1 for one in drones):
        parts += [*_size_tables("range ladder", distinct(grouped(drones))), scale_table(drones)]
    return "\n\n".join(part for part in parts if part)


def _size_tables(title: str, groups: Mapping[str, Sequence[ClipResult]]) -> list[str]:
    return [recall_by_size_table(title, groups), delay_by_size_table(title, groups)]


def drone_table(groups: Mapping[str, Sequence[ClipResult]]) -> str:
    """Return the table of detection, a line per group."""
    rows = [[name, *_drone_cells(results)] for name, results in groups.items()]
    return _table(["drones", *DRONE_HEAD], rows)


def _drone_cells(results: Sequence[ClipResult]) -> list[str]:
    one = total(results)
    figures = [_cell(name, results) for name in ("drones found", *PER_FRAME)]
    return [*figures, _text(one.delay_s, 2), str(one.switches)]


def negative_table(groups: Mapping[str, Sequence[ClipResult]]) -> str:
    """Return the table of false alarms, a line per group."""
    rows = []
    for name, results in groups.items():
        one = total(results)
        hours = one.negative_s / 3600
        at_most = poisson_rate(one.false_tracks, hours, ONE_SIDED)[1]
        figures = [_cell("negative clips alarmed", results), _cell("false tracks/min", results, digits=1)]
        rows.append([name, *figures, f"{at_most:.1f}", f"{hours:.3f} h"])
    return _table(["clips without a drone", "alarmed", "false tracks/min", "alarms/h, at most", "recorded"], rows)


def recall_by_size_table(title: str, groups: Mapping[str, Sequence[ClipResult]]) -> str:
    """Return the table of recall by the labels' apparent size, a line per group."""

    def cell(one: OfSize | None) -> str:
        return "-" if one is None else f"{_bounded(one.recall.value, one.recall.bounds)} of {one.labels}"

    return _by_size(f"{title}: recall", groups, cell)


def delay_by_size_table(title: str, groups: Mapping[str, Sequence[ClipResult]]) -> str:
    """Return the table of delay by the clips' median apparent size, a line per group."""

    def cell(one: OfSize | None) -> str:
        if one is None or not one.clips:
            return "-"
        delay = "missed" if math.isinf(one.delay_s) else f"{one.delay_s:.2f} s"
        return f"{delay}, found {round(one.found.value * one.clips)} of {one.clips}"

    return _by_size(f"{title}: delay", groups, cell)


def _by_size(title: str, groups: Mapping[str, Sequence[ClipResult]], cell: Callable[[OfSize | None], str]) -> str:
    sizes = {name: by_size(results) for name, results in groups.items()}
    rows = [[name, *(cell(of_group.get(size)) for size in size_bins())] for name, of_group in sizes.items() if of_group]
    return _table([title, *size_bins()], rows)


def scale_table(results: Sequence[ClipResult]) -> str:
    """Return the table of the range ladder, a line per sensor and scale."""
    steps: dict[tuple[str, float], list[ClipResult]] = {}
    for one in results:
        steps.setdefault((one.sensor, -one.scale), []).append(one)
    rows = [[f"{sensor} x {-scale:g}", *_drone_cells(step)] for (sensor, scale), step in sorted(steps.items())]
    return _table(["scale", *DRONE_HEAD], rows)


def difference_table(groups: Mapping[str, Mapping[str, Difference]]) -> str:
    """Return the table of figures before and after, a line per group; bounds are those of the difference."""
    names = [name for name in RATIOS if any(name in row for row in groups.values())]
    rows = [[group, *(_change(row.get(name)) for name in names)] for group, row in groups.items()]
    return _table(["before -> after", *names], rows)


def _change(one: Difference | None) -> str:
    if one is None:
        return "-"
    bounds = f" ({one.bounds[0]:+.3f} to {one.bounds[1]:+.3f})" if one.bounds else ""
    return f"{_text(one.before)} -> {_text(one.after)}{bounds}"


def _cell(name: str, results: Sequence[ClipResult], digits: int = 3) -> str:
    one = figure(name, results)
    if name in PROPORTIONS:
        part, whole = RATIOS[name](total(results))
        return f"{part:g} of {whole:g}" + (f" ({_interval(one.bounds, digits)})" if one.bounds else "")
    return _bounded(one.value, one.bounds, digits)


def _bounded(value: float, bounds: Bounds | None, digits: int = 3) -> str:
    return _text(value, digits) + (f" ({_interval(bounds, digits)})" if bounds else "")


def _interval(bounds: Bounds, digits: int) -> str:
    return f"{bounds[0]:.{digits}f}-{bounds[1]:.{digits}f}"


def _text(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, "" without rows."""
    rows = list(rows)
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
