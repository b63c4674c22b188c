"""History of the host's metrics: latency, dropped frames and blind time over ten minutes, an hour and a day.

Takes the text of the host's `/metrics` every few seconds, and computes a LatencyReport.  Snapshots are kept in memory,
in two ring buffers: a fine one for ten minutes, a coarse one for a day.  Counters that decreased (after a restart) are
counted from zero.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from pipeline.telemetry.metrics import STAGES

END_TO_END = {
    "dasnet_capture_to_track_seconds": "capture_to_track",
    "dasnet_capture_to_alert_seconds": "capture_to_alert",
}
COUNTED = {
    "dasnet_frames_dropped_total": "dropped",
    "dasnet_frames_failed_total": "failed",
    "dasnet_blind_seconds_total": "blind_s",
}
FINE_S, COARSE_S = 5.0, 60.0
WINDOWS_S: dict[str, tuple[float, float]] = {  # length, and width of a column of the heat map
    "10m": (600.0, 10.0),
    "1h": (3600.0, 60.0),
    "24h": (86400.0, 900.0),
}
Window = Literal["10m", "1h", "24h"]


@dataclass(frozen=True)
class Buckets:
    """A cumulative histogram: the count up to each bound, the last of which is infinite, and the sum."""

    bounds_s: tuple[float, ...]
    counts: NDArray[np.float64]
    sum_s: float


CountKey = tuple[str, str, str]  # counter, camera, cause


@dataclass(frozen=True)
class Counts:
    """Counters as an array with shared keys; dictionaries would take four times the memory."""

    keys: tuple[CountKey, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class MetricsSnapshot:
    """The host's counters at one moment."""

    time_utc_s: float
    latency: dict[str, Buckets]  # by stage or end-to-end name, over all cameras
    counts: Counts


class Quantiles(msgspec.Struct, frozen=True):
    """Quantiles of a latency; None where nothing was measured."""

    name: str
    count: int
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class CameraLoss(msgspec.Struct, frozen=True):
    """Frames and time that a camera lost to one cause."""

    camera: str
    cause: str
    dropped: int
    failed: int
    blind_s: float


class LatencyReport(msgspec.Struct, frozen=True):
    """Latency and losses over a window, with a heat map of capture-to-track latency."""

    window_s: float
    step_s: float  # width of a column
    from_utc_ns: int  # start of the first column
    sampled_utc_ns: int | None  # time of the newest sample, if any
    covered_s: float  # part of the window with samples
    objective_s: float  # capture to track
    end_to_end: list[Quantiles]
    stages: list[Quantiles]
    losses: list[CameraLoss]  # nonzero ones only
    edges_s: list[float | None]  # of the heat map's rows, ascending; None: infinite
    columns: list[list[int] | None]  # number of frames by row; None: not sampled
    error: str | None  # why there is no newer sample


@dataclass
class _Increase:
    """The sum of increases between snapshots."""

    latency: dict[str, Buckets] = field(default_factory=dict)
    counts: dict[CountKey, float] = field(default_factory=dict)

    def add(self, before: MetricsSnapshot, after: MetricsSnapshot) -> None:
        for name, buckets in after.latency.items():
            rise, known = increase(before.latency.get(name), buckets), self.latency.get(name)
            if known is not None and known.bounds_s == rise.bounds_s:
                rise = Buckets(rise.bounds_s, rise.counts + known.counts, rise.sum_s + known.sum_s)
            self.latency[name] = rise
        for key, value in counted_since(before.counts, after.counts):
            self.counts[key] = self.counts.get(key, 0.0) + value


class History:
    """Metrics snapshots of the last day; thread-safe."""

    def __init__(self, objective_s: float) -> None:
        self.error: str | None = "no sample yet"
        self.build: dict[str, str] = {}  # the labels of dasnet_build_info
        self._objective_s = objective_s
        self._lock = threading.Lock()
        self._fine: deque[MetricsSnapshot] = deque(maxlen=int(WINDOWS_S["10m"][0] / FINE_S) + 1)
        self._coarse: deque[MetricsSnapshot] = deque(maxlen=int(WINDOWS_S["24h"][0] / COARSE_S) + 1)

    def receive(self, text: str, time_utc_s: float) -> None:
        """Add the text of `/metrics`.

        Raises:
            ValueError: It cannot be parsed.
        """
        sample, build = parse(text, time_utc_s)
        with self._lock:
            self.build = build
            self._fine.append(sample)
            if not self._coarse or time_utc_s // COARSE_S != self._coarse[-1].time_utc_s // COARSE_S:
                self._coarse.append(sample)
            self.error = None

    def report(self, window: Window, now_utc_s: float) -> LatencyReport:
        """Return latency and losses over a window that ends now."""
        window_s, step_s = WINDOWS_S[window]
        with self._lock:
            samples = list(self._fine if window == "10m" else self._coarse)
            if self._fine and samples[-1] is not self._fine[-1]:
                samples.append(self._fine[-1])
        columns_count = int(window_s / step_s)
        start_s = (np.floor(now_utc_s / step_s) + 1 - columns_count) * step_s
        samples = [sample for sample in samples if sample.time_utc_s > start_s - step_s]
        total, columns = _Increase(), [_Increase() for _ in range(columns_count)]
        for before, after in pairwise(samples):
            total.add(before, after)
            column = int(((before.time_utc_s + after.time_utc_s) / 2 - start_s) // step_s)
            if 0 <= column < columns_count:
                columns[column].add(before, after)
        edges_s, rows = _heat_map(total, columns, self._objective_s)
        return LatencyReport(
            window_s=window_s,
            step_s=step_s,
            from_utc_ns=int(start_s * 1e9),
            sampled_utc_ns=int(samples[-1].time_utc_s * 1e9) if samples else None,
            covered_s=samples[-1].time_utc_s - samples[0].time_utc_s if samples else 0.0,
            objective_s=self._objective_s,
            end_to_end=[_quantiles(name, total.latency.get(name)) for name in END_TO_END.values()],
            stages=[_quantiles(name, total.latency.get(name)) for name in STAGES],
            losses=_losses(total.counts),
            edges_s=edges_s,
            columns=rows,
            error=self.error,
        )


def parse(text: str, time_utc_s: float) -> tuple[MetricsSnapshot, dict[str, str]]:
    """Parse the text of `/metrics`.

    Returns:
        The snapshot, and the labels of dasnet_build_info.

    Raises:
        ValueError: The text cannot be parsed.
    """
    histograms: dict[str, dict[float, float]] = {}
    sums: dict[str, float] = {}
    counts: dict[CountKey, float] = {}
    build: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            stem, _, part = name.rpartition("_")
            latency = labels.get("stage", "") if stem == "dasnet_stage_latency_seconds" else END_TO_END.get(stem)
            if name in COUNTED:
                counts[COUNTED[name], labels.get("camera", ""), labels.get("cause", "")] = value
            elif name == "dasnet_build_info":
                build = dict(labels)
            elif latency and part == "bucket":
                buckets, bound_s = histograms.setdefault(latency, {}), float(labels["le"])
                buckets[bound_s] = buckets.get(bound_s, 0.0) + value
            elif latency and part == "sum":
                sums[latency] = sums.get(latency, 0.0) + value
    latency_by_name = {
        name: Buckets(
            _interned(tuple(sorted(buckets))),
            np.array([buckets[bound] for bound in sorted(buckets)]),
            sums.get(name, 0.0),
        )
        for name, buckets in histograms.items()
    }
    keys = _interned(tuple(sorted(counts)))
    return MetricsSnapshot(time_utc_s, latency_by_name, Counts(keys, np.array([counts[key] for key in keys]))), build


@lru_cache(64)
def _interned(key: Any) -> Any:
    """Return one shared object for equal keys, of which a day of snapshots would hold thousands of copies."""
    return key


def increase(before: Buckets | None, after: Buckets) -> Buckets:
    """Return the increase of a histogram; all of `after` where it was reset."""
    if before is None or before.bounds_s != after.bounds_s or (after.counts < before.counts).any():
        return after
    return Buckets(after.bounds_s, after.counts - before.counts, max(0.0, after.sum_s - before.sum_s))


def counted_since(before: Counts, after: Counts) -> Iterator[tuple[CountKey, float]]:
    """Yield the increases of counters; the whole value of those that were reset."""
    old = before.values
    if before.keys != after.keys:
        known = dict(zip(before.keys, before.values.tolist(), strict=True))
        old = np.array([known.get(key, 0.0) for key in after.keys])
    rise = np.where(after.values >= old, after.values - old, after.values)
    return ((after.keys[place], float(rise[place])) for place in np.flatnonzero(rise))


def quantile(share: float, buckets: Buckets) -> float | None:
    """Return a quantile, interpolated linearly within its bucket and limited to the last finite bound.

    The same as Prometheus' `histogram_quantile`.
    """
    total = buckets.counts[-1] if len(buckets.counts) else 0.0
    if total <= 0:
        return None
    rank = share * total
    place = int(np.searchsorted(buckets.counts, rank))
    if place >= len(buckets.bounds_s) - 1:
        return buckets.bounds_s[-2] if len(buckets.bounds_s) > 1 else None
    lower_s, below = (buckets.bounds_s[place - 1], buckets.counts[place - 1]) if place else (0.0, 0.0)
    inside = buckets.counts[place] - below
    return float(lower_s + (buckets.bounds_s[place] - lower_s) * (rank - below) / inside) if inside > 0 else lower_s


def _quantiles(name: str, buckets: Buckets | None) -> Quantiles:
    count = int(buckets.counts[-1]) if buckets is not None and len(buckets.counts) else 0
    if buckets is None or not count:
        return Quantiles(name, 0, None, None, None, None)
    return Quantiles(name, count, buckets.sum_s / count, *(quantile(share, buckets) for share in (0.5, 0.95, 0.99)))


def _losses(counts: dict[CountKey, float]) -> list[CameraLoss]:
    keys = sorted({(camera, cause) for (_, camera, cause), value in counts.items() if value > 0})
    return [
        CameraLoss(
            *key,
            dropped=int(counts.get(("dropped", *key), 0)),
            failed=int(counts.get(("failed", *key), 0)),
            blind_s=round(counts.get(("blind_s", *key), 0.0), 3),
        )
        for key in keys
    ]


def _heat_map(
    total: _Increase, columns: Sequence[_Increase], objective_s: float
) -> tuple[list[float | None], list[list[int] | None]]:
    """Return edges and columns of capture to track, from the lowest nonempty row to the highest or the objective's."""
    whole = total.latency.get("capture_to_track")
    if whole is None or not whole.counts[-1]:
        return [], [[] if column.latency else None for column in columns]
    filled = np.flatnonzero(np.diff(whole.counts, prepend=0.0))
    first, last = int(filled[0]), max(int(filled[-1]), int(np.searchsorted(whole.bounds_s, objective_s)))
    rows = [_column(column.latency.get("capture_to_track"), whole, slice(first, last + 1)) for column in columns]
    edges_s = (0.0, *whole.bounds_s)[first : last + 2]
    return [edge if np.isfinite(edge) else None for edge in edges_s], rows


def _column(buckets: Buckets | None, whole: Buckets, rows: slice) -> list[int] | None:
    if buckets is None or buckets.bounds_s != whole.bounds_s:
        return None
    return [int(count) for count in np.diff(buckets.counts, prepend=0.0)[rows]]
