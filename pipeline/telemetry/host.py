"""The one `/metrics` a host: what all its workers reported, what the ledgers of its cameras say, who is up.

In: heartbeats, and from the supervisor which workers ended.  Out: all samples, counters monotonic also when a worker is
replaced; and what the host is not ready for.  Gauges of a worker that is not up are left out, for they tell of the
past; its `dasnet_worker_up` is 0.  Only a capture worker that read its recording to the end is missed by nobody.
"""

import threading
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.config.models import Camera, Config
from pipeline.errors import StoreError, WireError
from pipeline.store import ledger
from pipeline.telemetry.metrics import Families, WorkerMetrics, families, not_listening, store_not_ready
from pipeline.telemetry.resources import DiskResources
from pipeline.timeouts import FRAME_PROGRESS_TIMEOUT_S, WORKER_SILENCE_TIMEOUT_S
from pipeline.transport.wire import Heartbeat, Sample

AGE = "dasnet_frame_age_seconds"
SUPERVISOR = "supervisor"
TRACKING = "tracking"

_Key = tuple[str, tuple[tuple[str, str], ...]]  # sample name, labels


@dataclass
class _Worker:
    """The newest samples of a worker, and what its predecessors had counted."""

    started_ns: int = 0
    heard_s: float | None = None  # None: it is not up
    families: Families = field(default_factory=dict)
    before: dict[_Key, tuple[str, str, str, float]] = field(default_factory=dict)  # metric, type, help, count
    restarts: int = 0

    @property
    def is_up(self) -> bool:
        return self.heard_s is not None and time.monotonic() - self.heard_s < WORKER_SILENCE_TIMEOUT_S

    def receive(self, heartbeat: Heartbeat) -> None:
        if self.started_ns != heartbeat.started_ns:
            for name, (kind, text, samples) in self.families.items():
                if kind in ("counter", "histogram"):
                    for sample in samples:
                        key = _key(sample)
                        self.before[key] = (name, kind, text, self._counted(key) + sample.value)
            self.started_ns = heartbeat.started_ns
        self.families = heartbeat.families
        self.heard_s = time.monotonic()

    def forget(self, cameras: Container[str]) -> None:
        """Until it says more, which it will not of these."""
        self.before = {key: count for key, count in self.before.items() if dict(key[1]).get("camera") not in cameras}
        self.families = {
            name: (kind, text, [sample for sample in samples if sample.labels.get("camera") not in cameras])
            for name, (kind, text, samples) in self.families.items()
        }

    def _counted(self, key: _Key) -> float:
        return self.before[key][3] if key in self.before else 0.0

    def samples(self) -> Iterator[tuple[str, str, str, _Key, float]]:
        """Metric, type, help, key and value of everything that is still true."""
        told = set()
        for name, (kind, text, samples) in self.families.items():
            counts = kind in ("counter", "histogram")
            for sample in samples if counts or self.is_up else ():
                key = _key(sample)
                told.add(key)
                yield name, kind, text, key, sample.value + (self._counted(key) if counts else 0.0)
        for key, (name, kind, text, count) in self.before.items():
            if key not in told:  # nothing of it has happened yet since the worker was replaced
                yield name, kind, text, key, count


def _key(sample: Sample) -> _Key:
    return sample.name, tuple(sorted(sample.labels.items()))


class HostMetricsCollector(Collector):
    """Called from several threads: heartbeats come in one, requests in others."""

    def __init__(self, config: Config, workers: Iterable[str]) -> None:
        self._config = config
        self._workers = {name: _Worker() for name in workers}
        self._done: set[str] = set()
        self._turn = threading.Lock()
        self._own = WorkerMetrics(SUPERVISOR)
        self.refused = self._own.refused
        self._own.registry.register(DiskResources({"run": config.run_dir, "store": config.store_path.parent}))

    def receive(self, heartbeat: Heartbeat) -> None:
        """Raises WireError for a worker that is none of this host's."""
        if heartbeat.worker not in self._workers:
            raise WireError(f"a heartbeat of {heartbeat.worker[:80]!r}, which is no worker here")
        with self._turn:
            self._workers[heartbeat.worker].receive(heartbeat)

    def watch(self, config: Config, workers: Iterable[str]) -> None:
        """The site and its workers from now on: of others, cameras and workers, nothing is told any more."""
        with self._turn:
            gone = {camera.id for camera in self._config.cameras} - {camera.id for camera in config.cameras}
            self._config = config
            self._workers = {name: self._workers.get(name, _Worker()) for name in workers}
            self._done &= self._workers.keys()
            for worker in self._workers.values():
                worker.forget(gone)

    def ended(self, worker: str) -> None:
        """Its process is gone, before its silence says so."""
        self._workers[worker].heard_s = None

    def restarted(self, worker: str) -> None:
        self._workers[worker].restarts += 1

    def due(self, worker: str) -> None:
        """It is to run, though one of its name may have finished: a camera was changed."""
        self._done.discard(worker)

    def finished(self, worker: str) -> None:
        """It did all that it had to do, and is missed by nobody: a recording was read to its end."""
        self._workers[worker].heard_s = None
        self._done.add(worker)

    def collect(self) -> Iterator[Metric]:
        own = _Worker(heard_s=time.monotonic(), families=families(self._own.registry))
        with self._turn:  # or what a replaced worker had counted might be seen twice
            merged = list(_merged([*self._workers.values(), own]))
        yield from merged
        yield from self._ledgers()
        yield from self._fates()
        objective = self._config.objective.capture_to_track_ms / 1e3
        yield GaugeMetricFamily("dasnet_objective_seconds", "Wanted from capture to track.", objective)

    def not_ready(self) -> list[str]:
        """What does not do its work: workers that are not up, cameras that are up and yet not searched."""
        waited_for = {name: worker for name, worker in self._workers.items() if name not in self._done}
        faults = [f"worker {name}: is not up" for name, worker in waited_for.items() if not worker.is_up]
        faults += [
            fault for worker in self._workers.values() if worker.is_up for fault in not_listening(worker.families)
        ]
        cameras = [c for c in self._config.cameras if self._is_elsewhere(c) or f"capture-{c.id}" in waited_for]
        up = [camera for camera in cameras if self._is_up(camera)]
        if not up:
            faults.append("no camera is up")
        if TRACKING not in self._workers:  # another host searches
            return faults
        ages_s = self._ages_s()
        for camera in up:
            age_s = ages_s.get(camera.id)
            if age_s is None:
                faults.append(f"camera {camera.id}: is up, but was not searched yet")
            elif age_s > max(FRAME_PROGRESS_TIMEOUT_S, 3 / (camera.rate_fps or 1.0)):
                faults.append(f"camera {camera.id}: is up, but was not searched for {age_s:.1f} s")
        tracking = self._workers[TRACKING]
        return faults + (store_not_ready(tracking.families) if tracking.is_up else [])

    def _ages_s(self) -> dict[str, float]:
        tracking = self._workers[TRACKING]
        _, _, samples = tracking.families.get(AGE, ("", "", []))
        since_s = time.monotonic() - (tracking.heard_s or 0.0)
        return {sample.labels.get("camera", ""): sample.value + since_s for sample in samples}

    def _account(self, camera: Camera) -> ledger.Account | None:
        try:
            return ledger.read(self._config.ledger_path(camera.id))
        except (OSError, ValueError, StoreError):  # not there yet
            return None

    def _is_up(self, camera: Camera) -> bool:
        """As its worker says, if that lives: a dead one leaves behind what it said last."""
        account = self._account(camera)
        if account is None or not account.up:
            return False
        if self._is_elsewhere(camera):  # its ledger is a copy, which is renewed once a second
            return time.time_ns() - account.updated_utc_ns < WORKER_SILENCE_TIMEOUT_S * 1e9
        worker = self._workers.get(f"capture-{camera.id}")
        return worker is not None and worker.is_up

    def _is_elsewhere(self, camera: Camera) -> bool:
        return f"capture-{camera.id}" not in self._workers

    def _fates(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("dasnet_worker_up", "1 while the worker shows that it lives.", labels=["worker"])
        restarts = CounterMetricFamily("dasnet_worker_restarts", "Workers replaced.", labels=["worker"])
        for name, worker in self._workers.items():
            restarts.add_metric([name], worker.restarts)
            if name not in self._done:
                up.add_metric([name], worker.is_up)
        yield from (up, restarts)

    def _ledgers(self) -> Iterator[Metric]:
        camera, cause = ["camera"], ["camera", "cause"]
        captured = CounterMetricFamily("dasnet_frames_captured", "Frames decoded.", labels=camera)
        segmented = CounterMetricFamily("dasnet_frames_segmented", "Frames searched.", labels=camera)
        dropped = CounterMetricFamily("dasnet_frames_dropped", "Frames not searched.", labels=cause)
        failed = CounterMetricFamily("dasnet_frames_failed", "Frames whose search failed.", labels=cause)
        flying = GaugeMetricFamily("dasnet_frames_in_flight", "Frames being searched: credits in use.", labels=camera)
        credit = GaugeMetricFamily("dasnet_credits", "Frames that may be in flight.", labels=camera)
        blind = CounterMetricFamily("dasnet_blind_seconds", "Time a camera was not searched.", labels=cause)
        up = GaugeMetricFamily("dasnet_camera_up", "1 while the camera delivers.", labels=camera)
        reconnects = CounterMetricFamily("dasnet_camera_reconnects", "Connections made again.", labels=camera)
        for entry in self._config.cameras:
            account = self._account(entry)
            if account is None:
                continue
            name = [entry.id]
            captured.add_metric(name, account.captured)
            segmented.add_metric(name, account.segmented)
            flying.add_metric(name, account.in_flight)
            credit.add_metric(name, account.credits)
            up.add_metric(name, self._is_up(entry))
            reconnects.add_metric(name, account.reconnects)
            for reason in ledger.CAUSES:
                dropped.add_metric([entry.id, reason], account.dropped[reason])
                failed.add_metric([entry.id, reason], account.failed[reason])
                blind.add_metric([entry.id, reason], account.blind_ns[reason] / 1e9)
        yield from (captured, segmented, dropped, failed, flying, credit, blind, up, reconnects)


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
