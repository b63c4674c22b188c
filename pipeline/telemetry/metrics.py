"""Metrics of a worker, in its own registry.

In: what the worker measured.  Out: samples, sent with every heartbeat (`families`); `pipeline.telemetry.host` serves
those of all workers.  Labels are bounded: camera, stage, cause, severity, class, sink, worker, each from a fixed set.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pipeline.evidence.metrics import EvidenceMetrics
from pipeline.store.metrics import EVENTS_WAITING, STORE_FAILING, UNREQUESTED, ClipMetrics, StoreMetrics, clips_lost
from pipeline.telemetry.alert_metrics import AlertMetrics
from pipeline.telemetry.buckets import camera_buckets_s, rare_buckets_s, stage_buckets_s
from pipeline.telemetry.clock_drift import ClockDriftMonitor
from pipeline.telemetry.pose import PoseMetrics
from pipeline.telemetry.resources import LogLosses, ProcessResources
from pipeline.telemetry.sinks import SinkMetrics
from pipeline.timeouts import FRAME_PROGRESS_TIMEOUT_S
from pipeline.transport.wire import Sample, Stamps
from pipeline.types import Event, EventKind, FrameRef, Track, TrackState

STAGES = ("decode", "transport", "wait", "inference", "mask", "track", "alert", "sink")  # in processing order
LISTENING = "dasnet_listening"
BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)

Families = dict[str, tuple[str, str, list[Sample]]]  # by metric name: type, help, samples


class WorkerMetrics:
    """Metrics of every worker: its process, rejected messages, and whether its services listen."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.registry = CollectorRegistry()
        self.registry.register(ProcessResources(worker))
        self.registry.register(LogLosses())
        self.refused = self._counter(
            "dasnet_messages_refused", "Messages rejected: malformed, of another version, or unexpected.", ["worker"]
        ).labels(worker)
        self.listening = self._gauge(
            LISTENING, "1 while a service listens, 0 while its address is in use.", ["service"]
        )

    def not_ready(self) -> list[str]:
        """Return the reasons why this worker is not ready; empty where it is."""
        return not_listening(families(self.registry))

    def _counter(self, name: str, text: str, labels: Iterable[str] = ("camera",)) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Iterable[str] = ("camera",)) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)


class FrameWorkerMetrics(WorkerMetrics):
    """Metrics of a worker that processes frames."""

    def __init__(self, worker: str) -> None:
        super().__init__(worker)
        self._worked_s: float | None = None

    def worked(self) -> None:
        """Record that a frame was processed."""
        self._worked_s = time.monotonic()

    def not_ready(self) -> list[str]:
        """Return the reasons why this worker is not ready, such as no frame for too long."""
        faults = super().not_ready()
        if self._worked_s is None:
            return [*faults, f"worker {self.worker}: no frame yet"]
        idle_s = time.monotonic() - self._worked_s
        if idle_s > FRAME_PROGRESS_TIMEOUT_S:
            faults.append(f"worker {self.worker}: no frame for {idle_s:.1f} s")
        return faults


class CaptureMetrics(FrameWorkerMetrics):
    """Metrics of a capture worker."""

    def __init__(self, camera: str) -> None:
        super().__init__(f"capture-{camera}")
        self._camera = camera
        self.clips = ClipMetrics(camera, self.registry)
        self.pose = PoseMetrics(camera, self.registry)
        self._video_ended = self._counter(
            "dasnet_live_video_ended",
            "Streams of a camera's own video to a browser that were ended or refused, by cause: slow (packets were "
            "overwritten), changed (the camera's stream), codec, viewers (too many), failed.",
            ["camera", "cause"],
        )
        self._clock = ClockDriftMonitor()
        self._offset = self._gauge(
            "dasnet_clock_offset_seconds", "This host's clock minus the camera's, including the network delay."
        )
        self._drift = self._gauge(
            "dasnet_clock_drift_ratio", "Growth of the clock offset in seconds per second, over the last five minutes."
        )

    def video_ended(self, cause: str) -> None:
        """Record that a stream of the camera's own video was ended or refused."""
        self._video_ended.labels(self._camera, cause).inc()

    def captured(self, ref: FrameRef) -> None:
        """Record a captured frame, and the camera's clock offset where it has a clock."""
        self.worked()
        if ref.ntp_ns is not None:
            self._clock.update((ref.received_utc_ns - ref.ntp_ns) / 1e9, ref.received_mono_ns / 1e9)
            if self._clock.offset_s is not None:
                self._offset.labels(self._camera).set(self._clock.offset_s)
            if self._clock.drift is not None:
                self._drift.labels(self._camera).set(self._clock.drift)


class SegmentationMetrics(FrameWorkerMetrics):
    """Metrics of the segmentation worker."""

    def __init__(self, model: str, engine: str, version: str) -> None:
        super().__init__("segmentation")
        self.batch_size = Histogram(
            "dasnet_batch_size", "Frames per batch.", registry=self.registry, buckets=BATCH_BUCKETS
        )
        self._share = self._gauge(
            "dasnet_network_share", "Share of each live frame's pixels that the network processes; 1: whole frames.", []
        )
        self._max_motion = self._gauge(
            "dasnet_judged_motion", "Motion candidates of a frame that are judged at most; fewer under overload.", []
        )
        self._revisit = self._gauge(
            "dasnet_scan_revisit_seconds", "How long the place that has waited longest has waited for the network."
        )
        self._scanned: frozenset[str] = frozenset()
        info = self._gauge(
            "dasnet_build_info", "Running version, model and engine; always 1.", ["version", "model", "engine"]
        )
        info.labels(version, model, engine).set(1)

    def scanned(self, share: float, max_motion: int, revisit_s: Mapping[str, float]) -> None:
        """Set the share of pixels that is processed, the motion that is judged, and how long cameras' places wait."""
        self._share.set(share)
        self._max_motion.set(max_motion)
        for camera in self._scanned - revisit_s.keys():
            self._revisit.remove(camera)
        for camera, seconds in revisit_s.items():
            self._revisit.labels(camera).set(seconds)
        self._scanned = frozenset(revisit_s)


class TrackingMetrics(FrameWorkerMetrics):
    """Metrics of the track worker, the last to handle a frame: it knows all of the frame's times."""

    def __init__(self, cameras: Iterable[str], objective_s: float) -> None:
        super().__init__("tracking")
        self.host: str | None = None  # of several inference hosts
        self._objective_s = objective_s
        self._stage = self._latency(
            "stage_latency", "Time a tracked frame spent in a stage.", stage_buckets_s(objective_s), "stage"
        )
        self.capture_to_track = self._latency(
            "capture_to_track", "Time from reception of a frame to its tracks.", camera_buckets_s(objective_s), "camera"
        )
        self.capture_to_alert = self._latency(
            "capture_to_alert",
            "Time from reception of a frame to its stored alert.",
            rare_buckets_s(objective_s),
            "camera",
        )
        self._camera_to_track = self._latency(
            "camera_to_track",
            "From exposure, by the camera's own clock, to the frame's tracks.",
            rare_buckets_s(objective_s),
            "camera",
        )
        self.missed = self._counter("dasnet_objective_missed", "Frames tracked later than the latency objective.")
        self._age = self._gauge("dasnet_frame_age_seconds", "Current age of the newest tracked frame.")
        self._received_ns: dict[str, int] = {}
        self._started_ns = time.monotonic_ns()
        self.confirmed = self._counter("dasnet_tracks_confirmed", "Tracks confirmed as uav or unknown.")
        self.active = self._gauge("dasnet_tracks_active", "Confirmed tracks at present.")
        self.distractors = self._counter(
            "dasnet_distractor_tracks", "Tracks suppressed as a distractor.", ["camera", "class"]
        )
        self.alerts = AlertMetrics(self.registry)
        self.clips_lost = clips_lost(self.registry)
        self.clips_pending = self._gauge("dasnet_clips_pending", "Clips that are still on the camera's edge host.")
        self.sinks = SinkMetrics(self.registry)
        self.store = StoreMetrics(self.registry)
        self.evidence = EvidenceMetrics(self.registry)
        self._cameras: frozenset[str] = frozenset()
        self.watch(frozenset(cameras))
        for stage in STAGES:
            self._stage.labels(stage)

    def watch(self, cameras: frozenset[str]) -> None:
        """Create the series of these cameras and remove those of others.

        Prometheus shows the first increase only of a series that existed before it.
        """
        initial = (self.confirmed, self.active, self.missed, self.capture_to_track, self.capture_to_alert)
        others = (self._camera_to_track, self._age, self.distractors, self.clips_lost, self.clips_pending)
        self.alerts.watch(cameras)
        for camera in cameras - self._cameras:
            for metric in initial:
                metric.labels(camera)
            self.clips_lost.labels(camera, UNREQUESTED)
        for camera in self._cameras - cameras:
            for metric in (*initial, *others):
                metric.remove_by_labels({"camera": camera})
            self._received_ns.pop(camera, None)
        self._cameras = cameras

    def tracked(self, ref: FrameRef, stamps: Stamps, started_ns: int, tracked_ns: int) -> None:
        """Record a tracked frame's latencies: its stages up to here add up to its age.

        Waiting is for credit, in the camera's queue, and for the device; transport is to the segmentation worker and on
        to this one.
        """
        wait_ns = stamps.sent_ns - ref.received_mono_ns - stamps.decode_ns + stamps.started_ns - stamps.arrived_ns
        transport_ns = stamps.arrived_ns - stamps.sent_ns + started_ns - stamps.masked_ns
        self.stage("decode", stamps.decode_ns)
        self.stage("wait", wait_ns)
        self.stage("transport", transport_ns)
        self.stage("inference", stamps.inferred_ns - stamps.started_ns)
        self.stage("mask", stamps.masked_ns - stamps.inferred_ns)
        self.stage("track", tracked_ns - started_ns)
        age_s = (tracked_ns - ref.received_mono_ns) / 1e9
        self.capture_to_track.labels(ref.camera).observe(age_s)
        self.missed.labels(ref.camera).inc(age_s > self._objective_s)
        if ref.ntp_ns is not None:  # accurate only if the two clocks agree
            delay_s = (ref.received_utc_ns - ref.ntp_ns) / 1e9
            self._camera_to_track.labels(ref.camera).observe(max(0.0, delay_s + age_s))
        if ref.camera not in self._received_ns:
            self._age.labels(ref.camera).set_function(partial(self._age_s, ref.camera))
        self._received_ns[ref.camera] = ref.received_mono_ns
        self.worked()

    def stored(self, event: Event) -> None:
        """Record the latency of a stored alert, unless an earlier process or another host raised it."""
        if event.kind is EventKind.ALERT_OPENED and event.track is not None and event.host == self.host:
            received_ns = event.track.last_seen.received_mono_ns
            if received_ns > self._started_ns:
                self.capture_to_alert.labels(event.camera).observe((time.monotonic_ns() - received_ns) / 1e9)

    def not_ready(self) -> list[str]:
        """Return the reasons why this worker is not ready, including a failing store."""
        return [*super().not_ready(), *store_not_ready(families(self.registry))]

    def track_count(self, camera: str, tracks: Iterable[Track]) -> None:
        """Set how many of a camera's tracks are confirmed."""
        current = (TrackState.CONFIRMED, TrackState.COASTING)
        self.active.labels(camera).set(sum(track.state in current for track in tracks))

    def count(self, events: Iterable[Event]) -> None:
        """Count confirmed and suppressed tracks, and the events of alerts."""
        for event in events:
            if event.kind is EventKind.TRACK_CONFIRMED:
                self.confirmed.labels(event.camera).inc()
            elif event.kind is EventKind.TRACK_LABELLED and event.track is not None:
                self.distractors.labels(event.camera, event.track.label).inc()
            self.alerts.count(event)

    def stage(self, name: str, duration_ns: int) -> None:
        """Record the time that a frame or an event spent in a stage."""
        self._stage.labels(name).observe(max(0, duration_ns) / 1e9)

    def _age_s(self, camera: str) -> float:
        return (time.monotonic_ns() - self._received_ns[camera]) / 1e9

    def _latency(self, name: str, text: str, buckets_s: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"dasnet_{name}_seconds", text, labels, registry=self.registry, buckets=buckets_s)


def store_not_ready(found: Families) -> list[str]:
    """Return the reasons why the store is not ready, from the samples of the track worker."""
    values = {s.name: s.value for name in (STORE_FAILING, EVENTS_WAITING) if name in found for s in found[name][2]}
    if not values.get(STORE_FAILING):
        return []
    return [f"store: write failing, {values.get(EVENTS_WAITING, 0):.0f} events queued; see the log for the reason"]


def not_listening(found: Families) -> list[str]:
    """Return the services that do not listen, since their address is in use."""
    _, _, samples = found.get(LISTENING, ("", "", []))
    return [f"{sample.labels['service']}: cannot listen at its address" for sample in samples if not sample.value]


def families(registry: CollectorRegistry) -> Families:
    """Return all samples of a registry, for a heartbeat."""
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
