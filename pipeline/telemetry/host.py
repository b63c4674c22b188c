"""Metrics of a host: the samples of all its workers, the ledgers of its cameras, and which workers are up.

In: heartbeats, and from the supervisor which workers ended.  Out: all samples, with counters that stay monotonic when a
worker is replaced; and the reasons why the host is not ready.  Gauges of a worker that is down are omitted, since they
are outdated; its `dasnet_worker_up` is 0.  A capture worker that read its recording to the end need not be up.
"""

import threading
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.config.camera import Camera
from pipeline.config.models import Config
from pipeline.errors import StoreError, WireError
from pipeline.store import ledger
from pipeline.telemetry.metrics import (
    Families,
    WorkerMetrics,
    families,
    not_listening,
    store_not_ready,
)
from pipeline.telemetry.resources import DiskResources
from pipeline.timeouts import FRAME_PROGRESS_TIMEOUT_S, WORKER_SILENCE_TIMEOUT_S
from pipeline.transport.wire import Heartbeat, Sample
from pipeline.types import Cause

AGE = "dasnet_frame_age_seconds"
SUPERVISOR = "supervisor"
TRACKING = "tracking"

_Key = tuple[str, tuple[tuple[str, str], ...]]  # sample name, labels


@dataclass
class _Worker:
    """The newest samples of a worker, and the counts of its predecessors."""

    started_ns: int = 0
    heartbeat_s: float | None = None  # None: it is down
    families: Families = field(default_factory=dict)
    before: dict[_Key, tuple[str, str, str, float]] = field(default_factory=dict)  # metric, type, help, count
    restarts: int = 0

    @property
    def is_up(self) -> bool:
        return self.heartbeat_s is not None and time.monotonic() - self.heartbeat_s < WORKER_SILENCE_TIMEOUT_S

    def receive(self, heartbeat: Heartbeat) -> None:
        if self.started_ns != heartbeat.started_ns:
            for name, (kind, text, samples) in self.families.items():
                if kind in ("counter", "histogram"):
                    for sample in samples:
                        key = _key(sample)
                        self.before[key] = (name, kind, text, self._counted(key) + sample.value)
            self.started_ns = heartbeat.started_ns
        self.families = heartbeat.families
        self.heartbeat_s = time.monotonic()

    def forget(self, cameras: Container[str]) -> None:
        """Drop the samples of these cameras."""
        self.before = {key: count for key, count in self.before.items() if dict(key[1]).get("camera") not in cameras}
        self.families = {
            name: (kind, text, [sample for sample in samples if sample.labels.get("camera") not in cameras])
            for name, (kind, text, samples) in self.families.items()
        }

    def _counted(self, key: _Key) -> float:
        return self.before[key][3] if key in self.before else 0.0

    def samples(self) -> Iterator[tuple[str, str, str, _Key, float]]:
        """Yield metric, type, help, key and value of every current sample."""
        current = set()
        for name, (kind, text, samples) in self.families.items():
            is_count = kind in ("counter", "histogram")
            for sample in samples if is_count or self.is_up else ():
                key = _key(sample)
                current.add(key)
                yield name, kind, text, key, sample.value + (self._counted(key) if is_count else 0.0)
        for key, (name, kind, text, count) in self.before.items():
            if key not in current:  # not counted yet since the worker was replaced
                yield name, kind, text, key, count


def _key(sample: Sample) -> _Key:
    return sample.name, tuple(sorted(sample.labels.items()))


class HostMetricsCollector(Collector):
    """Collect the metrics of all workers of a host.

    Thread-safe: heartbeats arrive in one thread, requests in others.
    """

    def __init__(self, config: Config, workers: Iterable[str]) -> None:
        self._config = config
        self._workers = {name: _Worker() for name in workers}
        self._finished: set[str] = set()
        self._removed: frozenset[str] = frozenset()  # cameras of which a worker may still send samples
        self._lock = threading.Lock()
        self._own = WorkerMetrics(SUPERVISOR)
        self.refused = self._own.refused
        self._own.registry.register(DiskResources({"run": config.run_dir, "store": config.store_path.parent}))

    def receive(self, heartbeat: Heartbeat) -> None:
        """Take over the samples of a heartbeat.  Raise WireError for an unknown worker."""
        if heartbeat.worker not in self._workers:
            raise WireError(f"heartbeat of unknown worker {heartbeat.worker[:80]!r}")
        with self._lock:
            worker = self._workers[heartbeat.worker]
            worker.receive(heartbeat)
            if self._removed:
                worker.forget(self._removed)

    def watch(self, config: Config, workers: Iterable[str]) -> None:
        """Apply a new configuration and set of workers; drop the samples of others."""
        with self._lock:
            before, after = ({camera.id for camera in each.cameras} for each in (self._config, config))
            self._removed = (self._removed | before) - after
            self._config = config
            self._workers = {name: self._workers.get(name, _Worker()) for name in workers}
            self._finished &= self._workers.keys()
            for worker in self._workers.values():
                worker.forget(self._removed)

    def ended(self, worker: str) -> None:
        """Mark a worker as down: its process ended."""
        self._workers[worker].heartbeat_s = None

    def restarted(self, worker: str) -> None:
        """Count a restart of a worker."""
        self._workers[worker].restarts += 1

    def expect(self, worker: str) -> None:
        """Expect a worker to be up again: its camera was reconfigured after it had finished."""
        self._finished.discard(worker)

    def finished(self, worker: str) -> None:
        """Expect a worker no longer: it read its recording to the end."""
        self._workers[worker].heartbeat_s = None
        self._finished.add(worker)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all workers, ledgers and of the supervisor itself."""
        own = _Worker(heartbeat_s=time.monotonic(), families=families(self._own.registry))
        with self._lock:  # or the counts of a replaced worker could be added twice
            merged = list(_merged([*self._workers.values(), own]))
        yield from merged
        yield from self._ledgers()
        yield from self._worker_states()
        objective = self._config.objective.capture_to_track_ms / 1e3
        yield GaugeMetricFamily("dasnet_objective_seconds", "Latency objective from capture to track.", objective)

    def not_ready(self) -> list[str]:
        """Return the reasons why the host is not ready: workers that are down, cameras without processed frames."""
        expected = {name: worker for name, worker in self._workers.items() if name not in self._finished}
        faults = [f"worker {name}: is down" for name, worker in expected.items() if not worker.is_up]
        faults += [
            fault for worker in self._workers.values() if worker.is_up for fault in not_listening(worker.families)
        ]
        cameras = [c for c in self._config.cameras if self._is_on_edge_host(c) or f"capture-{c.id}" in expected]
        up = [camera for camera in cameras if self._is_up(camera)]
        if not up and self._config.cameras:  # one of several inference hosts may own none
            faults.append("no camera is up")
        if TRACKING not in self._workers:  # the inference host runs it
            return faults
        ages_s = self._ages_s()
        for camera in up:
            age_s = ages_s.get(camera.id)
            if age_s is None:
                faults.append(f"camera {camera.id}: is up, but no frame was processed yet")
            elif age_s > max(FRAME_PROGRESS_TIMEOUT_S, 3 / (camera.rate_fps or 1.0)):
                faults.append(f"camera {camera.id}: is up, but no frame was processed for {age_s:.1f} s")
        tracking = self._workers[TRACKING]
        return faults + (store_not_ready(tracking.families) if tracking.is_up else [])

    def _ages_s(self) -> dict[str, float]:
        tracking = self._workers[TRACKING]
        _, _, samples = tracking.families.get(AGE, ("", "", []))
        since_s = time.monotonic() - (tracking.heartbeat_s or 0.0)
        return {sample.labels.get("camera", ""): sample.value + since_s for sample in samples}

    def _account(self, camera: Camera) -> ledger.Account | None:
        try:
            return ledger.read(self._config.ledger_path(camera.id))
        except (OSError, ValueError, StoreError):  # not created yet
            return None

    def _is_up(self, camera: Camera) -> bool:
        """Return whether the camera is connected, unless its worker died and left that state in the ledger."""
        account = self._account(camera)
        if account is None or not account.up:
            return False
        if self._is_on_edge_host(camera):  # its ledger is a copy that is updated every second
            return time.time_ns() - account.updated_utc_ns < WORKER_SILENCE_TIMEOUT_S * 1e9
        worker = self._workers.get(f"capture-{camera.id}")
        return worker is not None and worker.is_up

    def _is_on_edge_host(self, camera: Camera) -> bool:
        return f"capture-{camera.id}" not in self._workers

    def _worker_states(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("dasnet_worker_up", "1 while the worker sends heartbeats.", labels=["worker"])
        restarts = CounterMetricFamily("dasnet_worker_restarts", "Restarts of a worker.", labels=["worker"])
        for name, worker in self._workers.items():
            restarts.add_metric([name], worker.restarts)
            if name not in self._finished:
                up.add_metric([name], worker.is_up)
        yield from (up, restarts)

    def _ledgers(self) -> Iterator[Metric]:
        camera, cause = ["camera"], ["camera", "cause"]
        captured = CounterMetricFamily("dasnet_frames_captured", "Frames decoded.", labels=camera)
        segmented = CounterMetricFamily("dasnet_frames_segmented", "Frames segmented.", labels=camera)
        dropped = CounterMetricFamily("dasnet_frames_dropped", "Frames dropped before segmentation.", labels=cause)
        failed = CounterMetricFamily("dasnet_frames_failed", "Frames whose processing failed.", labels=cause)
        in_flight = GaugeMetricFamily("dasnet_frames_in_flight", "Frames in flight: credits in use.", labels=camera)
        credit = GaugeMetricFamily("dasnet_credits", "Frames that may be in flight at once.", labels=camera)
        blind = CounterMetricFamily(
            "dasnet_blind_seconds", "Time for which a camera was blind, times the share of its view.", labels=cause
        )
        up = GaugeMetricFamily("dasnet_camera_up", "1 while the camera is connected.", labels=camera)
        reconnects = CounterMetricFamily("dasnet_camera_reconnects", "Reconnections to the camera.", labels=camera)
        for entry in self._config.cameras:
            account = self._account(entry)
            if account is None:
                continue
            name = [entry.id]
            captured.add_metric(name, account.captured)
            segmented.add_metric(name, account.segmented)
            in_flight.add_metric(name, account.in_flight)
            credit.add_metric(name, account.credits)
            up.add_metric(name, self._is_up(entry))
            reconnects.add_metric(name, account.reconnects)
            for reason in ledger.CAUSES:
                if reason in ledger.DROP_CAUSES or account.dropped[reason]:
                    dropped.add_metric([entry.id, reason], account.dropped[reason])
                if reason is Cause.FAILED or account.failed[reason]:
                    failed.add_metric([entry.id, reason], account.failed[reason])
                blind.add_metric([entry.id, reason], account.blind_ns[reason] / 1e9)
        yield from (captured, segmented, dropped, failed, in_flight, credit, blind, up, reconnects)


def _merged(workers: Sequence[_Worker]) -> Iterator[Metric]:
    metrics: dict[str, Metric] = {}
    totals: dict[str, dict[_Key, float]] = {}
    for worker in workers:
        for name, kind, text, key, value in worker.samples():
            metrics.setdefault(name, Metric(name, text, kind))
            values = totals.setdefault(name, {})
            values[key] = values.get(key, 0.0) + value
    for name, metric in metrics.items():
        for (sample_name, labels), value in totals[name].items():
            metric.add_sample(sample_name, dict(labels), value)
        yield metric
