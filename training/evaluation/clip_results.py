"""Results of clips: groups of them, their figures with bounds, and the JSON file that holds them.  Pure.

In: a `ClipResult` for each replayed clip.  Out: figures of groups by sensor, class, camera and set.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline.bounds import clopper_pearson, poisson_rate
from training.datasets import DataError
from training.evaluation.bootstrap import Bounds, Ratios, difference_bounds, ratio_bounds
from training.evaluation.clip_metrics import RATIOS, ClipMetrics, ratio, size_bin, size_bins

PROPORTIONS = ("drones found", "negative clips alarmed")  # of independent clips
RATES = ("false tracks/min",)
ALL = "all"


@dataclass(frozen=True)
class ClipResult:
    """The metrics of one clip, replayed at one scale.  A set is a data set's folder and split."""

    name: str
    set: str
    camera: str
    sensor: str
    clip_class: str
    scale: float  # 1: as recorded
    apparent_px: float  # median of the drone, at this scale; nan: none
    metrics: ClipMetrics

    @property
    def recording(self) -> tuple[str, str]:
        """Return what all scales of a clip share."""
        return self.set, self.name


@dataclass(frozen=True)
class Figure:
    """A figure with its 95% bounds, None where they are unknown."""

    value: float
    bounds: Bounds | None


def grouped(results: Iterable[ClipResult]) -> dict[str, list[ClipResult]]:
    """Return results by sensor and class, camera, set, sensor, and all together, each sorted by name."""
    kinds: list[dict[str, list[ClipResult]]] = [{}, {}, {}, {}, {}]
    for one in results:
        names = f"{one.sensor} {one.clip_class}", one.camera, one.set, one.sensor, ALL
        for groups, name in zip(kinds, names, strict=True):
            if name:
                groups.setdefault(name, []).append(one)
    return {name: groups[name] for groups in kinds for name in sorted(groups)}


def distinct(groups: dict[str, list[ClipResult]]) -> dict[str, list[ClipResult]]:
    """Return the groups without those that a later one equals."""
    last = {tuple(id(one) for one in members): name for name, members in groups.items()}
    return {name: members for name, members in groups.items() if name in last.values()}


def total(results: Iterable[ClipResult]) -> ClipMetrics:
    """Return the sum of the results' metrics."""
    metrics = ClipMetrics()
    for one in results:
        metrics.add(one.metrics)
    return metrics


def figure(name: str, results: Sequence[ClipResult]) -> Figure:
    """Return one of RATIOS over these results.

    Bounds are Clopper-Pearson's for shares of clips, exact Poisson for rates, and bootstrap over recordings for the
    rest, and where a recording is there at several scales: what comes from one recording is not independent.
    """
    part, whole = RATIOS[name](total(results))
    recordings = _by_recording(results).values()
    independent = len(recordings) == len(results)
    bounds: Bounds | None = None
    if whole and name in PROPORTIONS and independent:
        bounds = clopper_pearson(int(part), int(whole))
    elif whole and name in RATES and independent:
        bounds = poisson_rate(int(part), whole)
    elif whole:
        bounds = ratio_bounds([RATIOS[name](metrics) for metrics in recordings])
    return Figure(ratio(part, whole), bounds)


def _by_recording(results: Iterable[ClipResult]) -> dict[tuple[str, str], ClipMetrics]:
    recordings: dict[tuple[str, str], list[ClipResult]] = {}
    for one in results:
        recordings.setdefault(one.recording, []).append(one)
    return {recording: total(scales) for recording, scales in recordings.items()}


@dataclass(frozen=True)
class OfSize:
    """Recall of labels of one bin of apparent sizes, and delay of the clips whose median size is in it."""

    labels: int
    recall: Figure
    clips: int
    found: Figure
    delay_s: float  # median, a missed drone counting as infinite; nan: no clip


def by_size(results: Sequence[ClipResult]) -> dict[str, OfSize]:
    """Return recall and delay by apparent size, for bins with a label."""
    recordings = _by_recording(results).values()
    sizes = {}
    for size in size_bins():
        pairs: Ratios = [(one.right_of_size[size], one.labelled_of_size[size]) for one in recordings]
        right, labels = sum(right for right, _ in pairs), sum(labels for _, labels in pairs)
        clips = [one for one in results if one.metrics.drone_clips and size_bin(one.apparent_px) == size]
        delays = [delay for one in clips for delay in one.metrics.delays_s or [math.inf]]
        if labels:
            recall = Figure(ratio(right, labels), ratio_bounds([pair for pair in pairs if pair[1]]))
            delay_s = median(delays) if delays else math.nan
            sizes[size] = OfSize(int(labels), recall, len(clips), figure("drones found", clips), delay_s)
    return sizes


@dataclass(frozen=True)
class Difference:
    """A figure before and after, and bounds of after minus before, paired by recording."""

    before: float
    after: float
    bounds: Bounds | None


def compared(
    before: Sequence[ClipResult], after: Sequence[ClipResult]
) -> tuple[dict[str, dict[str, Difference]], list[str]]:
    """Return differences by group and figure, over clips that both have, and the names of the other clips.

    Raise DataError where there is none that both have.
    """
    earlier, later = ({(*one.recording, one.scale): one for one in results} for results in (before, after))
    common = [key for key in later if key in earlier]
    if not common:
        raise DataError("results to compare: have no clip in common; expected the same sets")
    differences: dict[str, dict[str, Difference]] = {}
    recorded = grouped(later[key] for key in common if later[key].scale == 1)
    for group, results in distinct(recorded).items():
        metrics = [(earlier[(*one.recording, one.scale)].metrics, one.metrics) for one in results]
        row = {name: _difference([(RATIOS[name](a), RATIOS[name](b)) for a, b in metrics]) for name in RATIOS}
        differences[group] = {name: one for name, one in row.items() if one is not None}
    return differences, sorted({key[1] for key in earlier.keys() ^ later.keys()})


def _difference(pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> Difference | None:
    pairs = [pair for pair in pairs if pair[0][1] or pair[1][1]]
    if not pairs:
        return None
    before, after = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Difference(_ratio_of_sums(before), _ratio_of_sums(after), difference_bounds(before, after))


def _ratio_of_sums(ratios: Ratios) -> float:
    return ratio(sum(part for part, _ in ratios), sum(whole for _, whole in ratios))


def as_row(result: ClipResult) -> dict[str, Any]:
    """Return a result as a flat mapping for the JSON file."""
    return {name: value for name, value in (vars(result) | vars(result.metrics)).items() if name != "metrics"}


def from_row(row: dict[str, Any]) -> ClipResult:
    """Return the result that `as_row` was given; raise TypeError, KeyError or ValueError for another mapping."""
    values = {name: row[name] for name in ClipResult.__annotations__ if name != "metrics"}
    counts = {name: row[name] for name in ClipMetrics.__annotations__}
    counts |= {name: Counter(counts[name]) for name in ("labelled_of_size", "right_of_size")}
    size = values["apparent_px"]
    return ClipResult(**{**values, "apparent_px": math.nan if size is None else size}, metrics=ClipMetrics(**counts))
