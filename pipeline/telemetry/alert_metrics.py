"""Metrics of alerts: their events, those that wait for an operator, and operators' reviews."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from pipeline.store.alert import Unacknowledged
from pipeline.types import DISMISSALS, Event, EventKind, Severity

SEVERITIES = (Severity.ALARM, Severity.WARNING)
KINDS = (EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED, EventKind.ALERT_LOWERED, EventKind.ALERT_ENDED)
REVIEWS = (EventKind.ALERT_ACKNOWLEDGED, EventKind.ALERT_REVIEWED, EventKind.ALERT_REOPENED)


def _events(registry: CollectorRegistry, kinds: Iterable[EventKind]) -> Counter:
    events = Counter("dasnet_alert_events", "Events of alerts, by kind.", ["kind"], registry=registry)
    for kind in kinds:
        events.labels(kind)
    return events


class AlertMetrics:
    """Metrics of the alerts that the track worker opens, changes and ends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._cameras: frozenset[str] = frozenset()
        self._opened = Counter(
            "dasnet_alerts", "Alerts opened, by their first severity.", ["camera", "severity"], registry=registry
        )
        self._events = _events(registry, KINDS)
        self._unacknowledged = Gauge(
            "dasnet_alerts_unacknowledged",
            "Alerts that wait for an operator, also those that have ended.",
            ["camera"],
            registry=registry,
        )
        self._age = Gauge(
            "dasnet_alerts_unacknowledged_age_seconds",
            "Time since the oldest alert that waits was opened or last escalated, by its highest severity; 0: none.",
            ["camera", "severity"],
            registry=registry,
        )

    def watch(self, cameras: frozenset[str]) -> None:
        """Create the series of these cameras and remove those of others."""
        for camera in cameras - self._cameras:
            for severity in SEVERITIES:
                self._opened.labels(camera, severity)
        for camera in self._cameras - cameras:
            for metric in (self._opened, self._unacknowledged, self._age):
                metric.remove_by_labels({"camera": camera})
        self._cameras = cameras

    def count(self, event: Event) -> None:
        """Count an event, where it is one of an alert."""
        if event.is_alert:
            self._events.labels(event.kind).inc()
        if event.kind is EventKind.ALERT_OPENED:
            self._opened.labels(event.camera, event.severity).inc()

    def set_unacknowledged(self, waiting: Iterable[Unacknowledged], now_utc_ns: int) -> None:
        """Set how many alerts wait, and for how long; those of cameras that were removed are left out."""
        cameras = self._cameras
        counts = dict.fromkeys(cameras, 0)
        ages_s = {(camera, severity): 0.0 for camera in cameras for severity in SEVERITIES}
        for each in waiting:
            if each.camera in cameras:
                counts[each.camera] += each.alerts
                ages_s[each.camera, each.severity] = max(0.0, (now_utc_ns - each.oldest_utc_ns) / 1e9)
        for camera, count in counts.items():
            self._unacknowledged.labels(camera).set(count)
        for (camera, severity), age_s in ages_s.items():
            self._age.labels(camera, severity).set(age_s)


class ReviewMetrics:
    """Metrics of what operators do with alerts; of the console, which stores it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = _events(registry, REVIEWS)
        self._dismissed = Counter(
            "dasnet_alerts_dismissed", "Alerts dismissed by an operator.", ["reason"], registry=registry
        )
        for reason in DISMISSALS:
            self._dismissed.labels(reason)

    def count(self, events: Iterable[Event]) -> None:
        """Count the events of reviews."""
        for event in events:
            self._events.labels(event.kind).inc()
            if event.verdict in DISMISSALS:
                self._dismissed.labels(event.verdict).inc()
