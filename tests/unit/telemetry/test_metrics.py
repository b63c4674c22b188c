"""Metrics: accurate quantiles, latency budgets that add up, and agreement with the ledger and the stored events."""

import json
import threading
import time
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support.events import ESCALATED, event, gone, raised, track
from support.program import Running
from support.site import demo_site

from pipeline.config.camera import Camera
from pipeline.config.console import Address
from pipeline.config.models import Config
from pipeline.store import ledger
from pipeline.store.alert import Unacknowledged
from pipeline.store.alert_events import alert_event
from pipeline.store.ledger import Ledger
from pipeline.store.reader import StoreReader
from pipeline.telemetry.alert_metrics import ReviewMetrics
from pipeline.telemetry.buckets import camera_buckets_s
from pipeline.telemetry.health import serve
from pipeline.telemetry.host import HostMetricsCollector
from pipeline.telemetry.metrics import (
    STAGES,
    CaptureMetrics,
    TrackingMetrics,
    WorkerMetrics,
    families,
)
from pipeline.telemetry.resources import GpuResources
from pipeline.transport.wire import Heartbeat, Stamps
from pipeline.types import Cause, EventKind, FrameRef, Severity, Verdict

MS = 1_000_000
CAMERAS = ("scene", "thermal")


def histogram_quantile(quantile: float, samples: np.ndarray, bounds: tuple[float, ...]) -> float:
    """Prometheus' rule for classic histograms: linear between the boundaries of the bucket that holds the rank."""
    cumulative = [0, *(int((samples <= bound).sum()) for bound in bounds)]
    rank = quantile * len(samples)
    for (low, high), (before, after) in zip(pairwise([0.0, *bounds]), pairwise(cumulative), strict=True):
        if after >= rank:
            return low + (high - low) * (rank - before) / (after - before)
    return bounds[-1]


@pytest.mark.parametrize("objective_s", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("median", [0.25, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5])
def test_quantiles_of_known_distributions_are_read_best_where_the_objective_is_judged(
    objective_s: float, median: float, sigma: float
):
    samples = np.random.default_rng(7).lognormal(np.log(median * objective_s), sigma, 100_000)
    bounds = camera_buckets_s(objective_s)
    for quantile in (0.95, 0.99):
        value = np.quantile(samples, quantile)
        share = value / objective_s
        tolerance = 0.05 if 0.7 < share < 1.25 else 0.12 if share < 2 else 0.5  # by then it is missed by far
        assert histogram_quantile(quantile, samples, bounds) == pytest.approx(value, rel=tolerance)


def test_close_to_the_objective_even_the_worst_distribution_is_read_within_ten_percent():
    bounds = camera_buckets_s(0.5)
    assert 0.5 in bounds and len(bounds) <= 20
    for value in np.linspace(0.42, 0.66, 60):  # all frames take equally long
        assert histogram_quantile(0.99, np.full(1000, value), bounds) == pytest.approx(value, rel=0.1)


@pytest.mark.parametrize(("ntp_ns", "most"), [(None, 70), (10_000 * MS, 80)], ids=["no clock", "clock"])
def test_a_camera_has_about_sixty_series(tmp_path: Path, ntp_ns: int | None, most: int):
    config = site(tmp_path)
    host, registry = HostMetricsCollector(config, ["tracking", "capture-north", "console"]), CollectorRegistry()
    registry.register(host)
    capture, tracking, console = CaptureMetrics("north"), TrackingMetrics(["north"], 0.5), WorkerMetrics("console")
    ReviewMetrics(console.registry)
    for seq in range(3):
        seen = reference(received_ns=seq * 1000 * MS, received_utc_ns=10_250 * MS, ntp_ns=ntp_ns)
        capture.captured(seen)
        tracking.tracked(seen, Stamps(), 1, 2)
    tracking.alerts.set_unacknowledged([], 0)
    tracking.track_count("north", [])
    for name, own in (("capture-north", capture), ("tracking", tracking), ("console", console)):
        host.receive(beat(name, 1, own.registry))
    with Ledger(config.ledger_path("north"), credits=1):
        families = list(registry.collect())
    series = [s for family in families for s in family.samples if s.labels.get("camera") == "north"]
    assert most - 10 < len(series) <= most, sorted(s.name for s in series)


def test_a_cause_of_which_no_drop_is_expected_is_shown_once_there_is_one(tmp_path: Path):
    config = site(tmp_path)
    registry = CollectorRegistry()
    registry.register(HostMetricsCollector(config, ["tracking"]))
    with Ledger(config.ledger_path("north"), credits=1) as account:
        assert "dasnet_frames_dropped_totalfrozennorth" not in values(registry)
        assert values(registry)["dasnet_frames_dropped_totalnorthoverload"] == 0
        account.dropped(Cause.FROZEN)
        assert values(registry)["dasnet_frames_dropped_totalfrozennorth"] == 1


def reference(camera: str = "north", received_ns: int = 0, **times: int) -> FrameRef:
    return FrameRef(camera, "s1", 0, 0.0, received_ns, times.pop("received_utc_ns", 0), **times)


def values(registry: CollectorRegistry) -> dict[str, float]:
    return {
        s.name + "".join(sorted(s.labels.values())): s.value for family in registry.collect() for s in family.samples
    }


def test_the_stages_of_a_frame_add_up_to_its_latency():
    metrics = TrackingMetrics(["north"], objective_s=0.09)
    stamps = Stamps(
        decode_ns=5 * MS,
        sent_ns=20 * MS,
        arrived_ns=22 * MS,
        started_ns=40 * MS,
        inferred_ns=80 * MS,
        masked_ns=84 * MS,
    )
    metrics.tracked(reference(), stamps, started_ns=90 * MS, tracked_ns=91 * MS)
    seen = values(metrics.registry)
    budget = {stage: round(seen[f"dasnet_stage_latency_seconds_sum{stage}"], 6) for stage in STAGES}
    assert budget == {
        "decode": 0.005, "transport": 0.008, "wait": 0.033, "inference": 0.04, "mask": 0.004, "track": 0.001,
        "alert": 0, "sink": 0,
    }  # fmt: skip
    assert sum(budget.values()) == pytest.approx(seen["dasnet_capture_to_track_seconds_sumnorth"])
    assert seen["dasnet_objective_missed_totalnorth"] == 1
    metrics.tracked(reference(), stamps, started_ns=85 * MS, tracked_ns=90 * MS)
    assert values(metrics.registry)["dasnet_objective_missed_totalnorth"] == 1
    assert seen["dasnet_frame_age_secondsnorth"] == pytest.approx(time.monotonic(), rel=0.01)  # received at 0


def test_the_clock_offset_is_exported_only_where_the_camera_has_a_clock():
    metrics = CaptureMetrics("north")
    metrics.captured(reference())
    assert "dasnet_clock_offset_secondsnorth" not in values(metrics.registry)
    metrics.captured(reference(received_utc_ns=10_250 * MS, ntp_ns=10_000 * MS))
    assert values(metrics.registry)["dasnet_clock_offset_secondsnorth"] == 0.25


def test_latency_by_the_camera_s_clock_is_exported_only_where_it_has_one():
    metrics = TrackingMetrics(["north", "gate"], objective_s=0.5)
    stamps = Stamps(1, 2, 3, 4, 5, 6)
    metrics.tracked(reference("gate"), stamps, started_ns=6, tracked_ns=90 * MS)
    taken = reference(received_utc_ns=10_250 * MS, ntp_ns=10_000 * MS)
    metrics.tracked(taken, stamps, started_ns=6, tracked_ns=90 * MS)
    seen = {name: value for name, value in values(metrics.registry).items() if "camera_to_track_seconds_sum" in name}
    assert seen == {"dasnet_camera_to_track_seconds_sumnorth": pytest.approx(0.34)}


def site(tmp_path: Path) -> Config:
    return Config(cameras=[Camera(id="north", uri="demo:scene")], run_dir=tmp_path)


def beat(worker: str, started_ns: int, registry: CollectorRegistry) -> Heartbeat:
    return Heartbeat(worker, 1, started_ns, families(registry))


def test_a_replaced_worker_steps_no_counter_back_and_leaves_no_old_gauge(tmp_path: Path):
    host = HostMetricsCollector(site(tmp_path), ["tracking"])
    registry = CollectorRegistry()
    registry.register(host)
    assert values(registry)["dasnet_worker_uptracking"] == 0
    for started_ns, total in ((1, 3), (2, 6)):
        metrics = TrackingMetrics(["north"], 0.5)
        metrics.confirmed.labels("north").inc(3)
        metrics.active.labels("north").set(2)
        host.receive(beat("tracking", started_ns, metrics.registry))
        seen = values(registry)
        assert seen["dasnet_worker_uptracking"] == 1
        assert seen["dasnet_tracks_confirmed_totalnorth"] == total
        assert seen["dasnet_tracks_activenorth"] == 2
        assert seen["dasnet_process_resident_bytestracking"] > 10e6
        host.ended("tracking")
        seen = values(registry)
        assert seen["dasnet_worker_uptracking"] == 0
        assert seen["dasnet_tracks_confirmed_totalnorth"] == total
        assert "dasnet_tracks_activenorth" not in seen and "dasnet_process_resident_bytestracking" not in seen
    assert seen["dasnet_disk_free_bytesrun"] > 0 and seen["dasnet_objective_seconds"] == 0.5
    host.finished("tracking")
    assert "dasnet_worker_uptracking" not in values(registry)


def test_a_late_heartbeat_brings_no_removed_camera_back(tmp_path: Path):
    one = site(tmp_path)
    two = Config(cameras=[*one.cameras, Camera(id="gate", uri="demo:scene")], run_dir=tmp_path)
    host, registry = HostMetricsCollector(two, ["tracking"]), CollectorRegistry()
    registry.register(host)
    metrics = TrackingMetrics(["north", "gate"], 0.5)
    for config, shown in ((two, True), (one, False), (two, True)):
        host.watch(config, ["tracking"])
        host.receive(beat("tracking", 1, metrics.registry))
        seen = values(registry)
        assert ("dasnet_tracks_confirmed_totalgate" in seen) == shown
        assert "dasnet_tracks_confirmed_totalnorth" in seen


def test_the_first_alert_is_an_increase():
    """Prometheus sees none where a series begins at 1."""
    seen = values(TrackingMetrics(["north"], 0.5).registry)
    assert seen["dasnet_alerts_totalalarmnorth"] == seen["dasnet_alerts_totalnorthwarning"] == 0


def test_a_count_survives_a_replaced_worker_that_has_not_counted_yet(tmp_path: Path):
    host = HostMetricsCollector(site(tmp_path), ["tracking"])
    registry = CollectorRegistry()
    registry.register(host)
    first, second, third = (TrackingMetrics(["north"], 0.5) for _ in range(3))
    first.distractors.labels("north", "bird").inc(2)
    first.capture_to_alert.labels("north").observe(0.1)
    third.distractors.labels("north", "bird").inc(1)
    for started_ns, metrics, total in ((1, first, 2), (2, second, 2), (3, third, 3)):
        host.receive(beat("tracking", started_ns, metrics.registry))
        seen = values(registry)
        assert seen["dasnet_distractor_tracks_totalbirdnorth"] == total
        assert seen["dasnet_capture_to_alert_seconds_countnorth"] == 1


def get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_ready_means_that_frames_of_every_camera_that_is_up_are_processed(tmp_path: Path):
    config = site(tmp_path)
    host = HostMetricsCollector(config, ["tracking", "capture-north"])
    registry = CollectorRegistry()
    registry.register(host)
    urls: Queue[str] = Queue()
    serve(Address(), registry, host.not_ready, threading.Event(), urls.put)
    address = urls.get(timeout=10).removesuffix("/metrics")

    def not_ready() -> list[str]:
        status, body = get(f"{address}/readyz")
        answer = json.loads(body)
        assert (status == 200) is answer["ready"] is (not answer["not_ready"])
        return answer["not_ready"]

    assert not_ready() == ["worker tracking: is down", "worker capture-north: is down", "no camera is up"]
    tracking = TrackingMetrics(["north"], 0.5)
    host.receive(beat("capture-north", 1, CollectorRegistry()))
    host.receive(beat("tracking", 1, tracking.registry))
    with Ledger(config.ledger_path("north"), credits=1) as account:
        account.connection(up=True)
        assert not_ready() == ["camera north: is up, but no frame was processed yet"]
        tracking.tracked(reference(received_ns=time.monotonic_ns()), Stamps(), 1, 2)
        host.receive(beat("tracking", 1, tracking.registry))
        assert not_ready() == []
        tracking.tracked(reference(received_ns=time.monotonic_ns() - 7000 * MS), Stamps(), 1, 2)
        host.receive(beat("tracking", 1, tracking.registry))
        assert not_ready()[0].startswith("camera north: is up, but no frame was processed for 7.")
        tracking.tracked(reference(received_ns=time.monotonic_ns()), Stamps(), 1, 2)
        tracking.store.failing.set(1)
        tracking.store.waiting.set(7)
        host.receive(beat("tracking", 1, tracking.registry))
        assert not_ready() == ["store: write failing, 7 events queued; see the log for the reason"]
        tracking.store.failing.set(0)
        host.receive(beat("tracking", 1, tracking.registry))
        account.connection(up=False)
        assert not_ready() == ["no camera is up"]
    assert get(f"{address}/healthz") == (200, '{"alive": true}')
    assert "dasnet_worker_up" in get(f"{address}/metrics")[1]


def test_a_standalone_worker_serves_its_own_metrics(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump({"cameras": [{"id": "c", "uri": "demo:scene"}], "run_dir": str(tmp_path / "run")}))
    with Running("worker", "capture", path, "--camera", "c", "--metrics-port", "0") as program:
        metrics = program.wait_for_line(r"^metrics: (http://127\.0\.0\.1:\d+)/metrics$")[1]
        program.wait_for_metric('dasnet_process_cpu_seconds_total{worker="capture-c"}', 0.01)
        deadline_s = time.monotonic() + 20
        while get(f"{metrics}/readyz")[0] != 200 and time.monotonic() < deadline_s:
            time.sleep(0.1)  # an HTTP endpoint can only be polled
        assert get(f"{metrics}/readyz") == (200, '{"ready": true, "not_ready": []}')
        assert program.stop() == 0


@pytest.mark.live
@pytest.mark.alone
def test_metrics_agree_with_the_ledger_and_with_the_stored_events(tmp_path: Path):
    run_dir = tmp_path / "run"
    with Running("run", demo_site(tmp_path)) as program:
        program.wait_for_metric('dasnet_tracks_confirmed_total{camera="thermal"}', 1, timeout_s=100)
        program.wait_for_metric('dasnet_frames_segmented_total{camera="scene"}', 5)
        program.wait_for_metric('dasnet_alerts_unacknowledged{camera="thermal"}', 1)
        address = program.wait_for_line(r"metrics: (http\S+)/metrics")[1]
        assert get(f"{address}/readyz") == (200, '{"ready": true, "not_ready": []}')
        before = {camera: ledger.read(run_dir / "ledgers" / f"{camera}.ledger") for camera in CAMERAS}
        scraped = program.metrics()
        after = {camera: ledger.read(run_dir / "ledgers" / f"{camera}.ledger") for camera in CAMERAS}
        events = [stored.event for stored in StoreReader(run_dir / "store.sqlite").events(1000)]
        text = urllib.request.urlopen(f"{address}/metrics", timeout=5).read().decode()
        assert program.stop() == 0
    for camera in CAMERAS:
        for name, read in (
            ("captured", lambda account: account.captured),
            ("segmented", lambda account: account.segmented),
            ("dropped", lambda account: account.dropped[Cause.OVERLOAD]),
        ):
            cause = ',cause="overload"' if name == "dropped" else ""
            value = scraped[f'dasnet_frames_{name}_total{{camera="{camera}"{cause}}}']
            assert read(before[camera]) <= value <= read(after[camera])
        assert scraped[f'dasnet_worker_up{{worker="capture-{camera}"}}'] == 1
        assert (
            scraped[f'dasnet_frames_in_flight{{camera="{camera}"}}'] <= scraped[f'dasnet_credits{{camera="{camera}"}}']
        )
    # Heartbeats come once a second: the newest frames may be missing, but none is counted twice.
    opened = [e for e in events if e.kind is EventKind.ALERT_OPENED and e.camera == "thermal"]
    alerts = scraped['dasnet_capture_to_alert_seconds_count{camera="thermal"}']
    assert 1 <= alerts <= len(opened)
    assert alerts <= scraped['dasnet_alert_events_total{kind="alert.opened"}']
    assert 1 <= scraped['dasnet_alerts_unacknowledged{camera="thermal"}'] <= alerts
    tracked = sum(scraped[f'dasnet_capture_to_track_seconds_count{{camera="{camera}"}}'] for camera in CAMERAS)
    assert 0 <= sum(after[camera].segmented for camera in CAMERAS) - tracked < 20
    budget_s = sum(scraped[f'dasnet_stage_latency_seconds_sum{{stage="{stage}"}}'] for stage in STAGES[:6])
    whole_s = sum(scraped[f'dasnet_capture_to_track_seconds_sum{{camera="{camera}"}}'] for camera in CAMERAS)
    assert budget_s == pytest.approx(whole_s, rel=0.01)
    for stage in STAGES:
        assert scraped[f'dasnet_stage_latency_seconds_count{{stage="{stage}"}}'] > 0, stage
    # An event has the time its frame was received; its snapshot was written about when the alert was stored.
    written = [(run_dir / "snapshots" / str(e.snapshot)).stat().st_mtime_ns - e.time_utc_ns for e in opened]
    until_snapshot_s = sum(written[: int(alerts)]) / 1e9
    until_stored_s = scraped['dasnet_capture_to_alert_seconds_sum{camera="thermal"}']
    assert until_snapshot_s - 0.5 * alerts <= until_stored_s <= until_snapshot_s + 0.5 * alerts
    labels = {key for f in text_string_to_metric_families(text) for s in f.samples for key in s.labels}
    assert labels <= {
        "camera", "cause", "stage", "worker", "severity", "class", "sink", "le", "folder", "version", "model", "engine",
        "output", "service", "kind", "reason",
    }  # fmt: skip


def test_events_and_reviews_of_alerts_are_counted_and_those_that_wait_are_gauged():
    metrics, console = TrackingMetrics(["north", "south"], 0.5), WorkerMetrics("console")
    reviews = ReviewMetrics(console.registry)
    events, dismissed = "dasnet_alert_events_totalalert.{}", "dasnet_alerts_dismissed_totalbird"
    assert values(metrics.registry)[events.format("escalated")] == values(console.registry)[dismissed] == 0
    opened = raised(track(1))
    metrics.count([*opened, event(ESCALATED, track(1), alert=opened[0].id), *gone(track(1), opened[0].id)])
    reviews.count([alert_event(EventKind.ALERT_ACKNOWLEDGED, "a", "north", None, 1)])
    for verdict in (Verdict.BIRD, Verdict.UAV, None):
        reviews.count([alert_event(EventKind.ALERT_REVIEWED, "a", "north", None, 1, verdict)])
    seen = values(metrics.registry)
    assert [seen[events.format(kind)] for kind in ("opened", "escalated", "lowered", "ended")] == [1, 1, 0, 1]
    seen = values(console.registry)
    assert [seen[events.format(kind)] for kind in ("acknowledged", "reviewed", "reopened")] == [1, 3, 0]
    assert seen[dismissed] == 1 and "dasnet_alerts_dismissed_totaluav" not in seen

    waiting = [
        Unacknowledged("north", Severity.ALARM, 2, 10**9), Unacknowledged("north", Severity.WARNING, 1, 5 * 10**9),
        Unacknowledged("removed", Severity.ALARM, 9, 0),
    ]  # fmt: skip
    metrics.alerts.set_unacknowledged(waiting, 7 * 10**9)
    seen = values(metrics.registry)
    assert [seen[f"dasnet_alerts_unacknowledged{camera}"] for camera in ("north", "south")] == [3, 0]
    age = "dasnet_alerts_unacknowledged_age_seconds"
    assert [seen[age + labels] for labels in ("alarmnorth", "northwarning", "alarmsouth")] == [6, 2, 0]
    metrics.watch(frozenset({"south"}))
    assert "dasnet_alerts_unacknowledgednorth" not in values(metrics.registry)


@pytest.mark.gpu
def test_gpu_memory_is_exported():
    import torch

    registry = CollectorRegistry()
    registry.register(GpuResources("cuda:0"))
    held = torch.zeros(64 * 2**20, dtype=torch.uint8, device="cuda:0")
    seen = values(registry)
    assert held.nbytes < seen["dasnet_gpu_memory_used_bytescuda:0"] < seen["dasnet_gpu_memory_bytescuda:0"]
    assert 0 <= seen.get("dasnet_gpu_utilisation_ratiocuda:0", 0) <= 1
