"""The metrics of a worker, and the one `/metrics` a host.

Each worker counts in a registry of its own and hands all samples over with its heartbeat.  The supervisor serves them
together with what the ledgers say, and keeps counters monotonic when a worker is replaced.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline import ledger
from pipeline.config import Config
from pipeline.errors import StoreError
from pipeline.transport.wire import Heartbeat, Sample

# Dense where a latency objective of some tenths of a second lies, so that quantiles read right there.
LATENCY_BUCKETS_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.125, 0.15),
    *(0.175, 0.2, 0.225, 0.25, 0.275, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0),
    *(10.0, 30.0),
)
BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class SegmentationMetrics:
    def __init__(self, model: str, engine: str, version: str) -> None:
        self.registry = CollectorRegistry()
        self.stage = stage_latency(self.registry)
        self.batch_size = Histogram(
            "dasnet_batch_size", "Frames in a batch.", registry=self.registry, buckets=BATCH_BUCKETS
        )
        self.refused = Counter("dasnet_messages_refused", "Malformed messages.", ["worker"], registry=self.registry)
        info = Gauge("dasnet_build_info", "What is running.", ["version", "model", "engine"], registry=self.registry)
        info.labels(version, model, engine).set(1)


class TrackingMetrics:
    def __init__(self, cameras: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self.stage = stage_latency(self.registry)
        self.capture_to_track = self._latency("dasnet_capture_to_track_seconds", "From reception to its tracks.")
        self.capture_to_alert = self._latency("dasnet_capture_to_alert_seconds", "From reception to a stored alert.")
        self.age = self._gauge("dasnet_frame_age_seconds", "Age of the newest tracked frame when it was tracked.")
        self.confirmed = self._counter("dasnet_tracks_confirmed", "Tracks confirmed as uav or unknown.")
        self.active = self._gauge("dasnet_tracks_active", "Confirmed tracks now.")
        self.distractors = Counter(
            "dasnet_distractor_tracks", "Tracks that are surely none.", ["camera", "class"], registry=self.registry
        )
        self.alerts = Counter("dasnet_alerts", "Alerts raised.", ["camera", "severity"], registry=self.registry)
        self.backlog = Gauge("dasnet_sink_backlog", "Events not yet delivered.", ["sink"], registry=self.registry)
        self.refused = Counter("dasnet_messages_refused", "Malformed messages.", ["worker"], registry=self.registry)
        for camera in cameras:  # a series that exists from the start shows its first increase
            self.confirmed.labels(camera)
            self.active.labels(camera)

    def _latency(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ["camera"], registry=self.registry, buckets=LATENCY_BUCKETS_S)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["camera"], registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["camera"], registry=self.registry)


class CaptureMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.stage = stage_latency(self.registry)


def stage_latency(registry: CollectorRegistry) -> Histogram:
    return Histogram(
        "dasnet_stage_latency_seconds",
        "Time a frame spent in a stage.",
        ["stage"],
        registry=registry,
        buckets=LATENCY_BUCKETS_S,
    )


def families(registry: CollectorRegistry) -> dict[str, tuple[str, str, list[Sample]]]:
    """All samples of a registry, for a heartbeat."""
    return {
        metric.name: (
            metric.type,
            metric.documentation,
            [
                Sample(sample.name, sample.labels, sample.value)
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ],
        )
        for metric in registry.collect()
    }


_Key = tuple[str, tuple[tuple[str, str], ...]]  # sample name, labels


@dataclass
class _Worker:
    """The newest samples of a worker, and what its predecessors had counted."""

    started_ns: int
    families: dict[str, tuple[str, str, list[Sample]]]
    before: dict[_Key, float] = field(default_factory=dict)


def _key(sample: Sample) -> _Key:
    return sample.name, tuple(sorted(sample.labels.items()))


class HostCollector(Collector):
    """Everything this host has to say: what its workers reported, and the ledgers of its cameras."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._workers: dict[str, _Worker] = {}
        self.restarts: dict[str, int] = {}

    def receive(self, heartbeat: Heartbeat) -> None:
        known = self._workers.get(heartbeat.worker)
        if known is None:
            self._workers[heartbeat.worker] = _Worker(heartbeat.started_ns, heartbeat.families)
            return
        if known.started_ns != heartbeat.started_ns:
            for kind, _, samples in known.families.values():
                if kind in ("counter", "histogram"):
                    for sample in samples:
                        known.before[_key(sample)] = known.before.get(_key(sample), 0.0) + sample.value
            known.started_ns = heartbeat.started_ns
        known.families = heartbeat.families

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        values: dict[str, dict[_Key, float]] = {}
        for worker in list(self._workers.values()):
            for name, (kind, text, samples) in worker.families.items():
                merged.setdefault(name, Metric(name, text, kind))
                totals = values.setdefault(name, {})
                for sample in samples:
                    key = _key(sample)
                    totals[key] = totals.get(key, 0.0) + sample.value
                    if kind in ("counter", "histogram"):
                        totals[key] += worker.before.get(key, 0.0)
        for name, metric in merged.items():
            for (sample_name, labels), value in values[name].items():
                metric.add_sample(sample_name, dict(labels), value)
            yield metric
        yield from self._ledgers()
        restarts = CounterMetricFamily("dasnet_worker_restarts", "Workers replaced.", labels=["worker"])
        for name, count in self.restarts.items():
            restarts.add_metric([name], count)
        yield restarts

    def _ledgers(self) -> Iterator[Metric]:
        camera, cause = ["camera"], ["camera", "cause"]
        captured = CounterMetricFamily("dasnet_frames_captured", "Frames decoded.", labels=camera)
        segmented = CounterMetricFamily("dasnet_frames_segmented", "Frames searched.", labels=camera)
        dropped = CounterMetricFamily("dasnet_frames_dropped", "Frames not searched.", labels=cause)
        failed = CounterMetricFamily("dasnet_frames_failed", "Frames whose search failed.", labels=cause)
        flying = GaugeMetricFamily("dasnet_frames_in_flight", "Frames being searched.", labels=camera)
        blind = CounterMetricFamily("dasnet_blind_seconds", "Time a camera was not searched.", labels=cause)
        up = GaugeMetricFamily("dasnet_camera_up", "1 while the camera delivers.", labels=camera)
        reconnects = CounterMetricFamily("dasnet_camera_reconnects", "Connections made again.", labels=camera)
        for entry in self._config.cameras:
            try:
                account = ledger.read(self._config.ledger_path(entry.id))
            except (OSError, ValueError, StoreError):  # not there yet
                continue
            name = [entry.id]
            captured.add_metric(name, account.captured)
            segmented.add_metric(name, account.segmented)
            flying.add_metric(name, account.in_flight)
            up.add_metric(name, float(account.up))
            reconnects.add_metric(name, account.reconnects)
            for reason in ledger.CAUSES:
                dropped.add_metric([entry.id, reason], account.dropped[reason])
                failed.add_metric([entry.id, reason], account.failed[reason])
                blind.add_metric([entry.id, reason], account.blind_ns[reason] / 1e9)
        yield from (captured, segmented, dropped, failed, flying, blind, up, reconnects)
