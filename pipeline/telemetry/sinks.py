"""Metrics of the sinks; a sink's label is its configured name, which holds no secret."""

import time
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

LABELS = ["sink"]


class SinkMetrics:
    """Metrics of the sinks: what was delivered, what was not, and how late they are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.backlog = Gauge("dasnet_sink_backlog", "Events not yet delivered to a sink.", LABELS, registry=registry)
        self.delivered = Counter("dasnet_sink_delivered", "Events that a sink accepted.", LABELS, registry=registry)
        self.failures = Counter(
            "dasnet_sink_failures", "Attempts to reach a sink that failed.", LABELS, registry=registry
        )
        self.dead_letters = Counter(
            "dasnet_sink_dead_letters",
            "Events that a sink refused again and again, written to its dead letters.",
            LABELS,
            registry=registry,
        )
        self.expired = Counter(
            "dasnet_sink_expired", "Events that were too old when a sink could be reached.", LABELS, registry=registry
        )
        self._lag = Gauge(
            "dasnet_sink_lag_seconds", "Age of the oldest event not yet delivered to a sink.", LABELS, registry=registry
        )
        self._oldest_utc_ns: dict[str, int | None] = {}

    def watch(self, sink: str) -> None:
        """Create the series of a sink, so that Prometheus sees their first increase."""
        for metric in (self.backlog, self.delivered, self.failures, self.dead_letters, self.expired):
            metric.labels(sink)
        self._lag.labels(sink).set_function(partial(self._lag_s, sink))

    def oldest(self, sink: str, time_utc_ns: int | None) -> None:
        """Set the time of the oldest event that a sink has not got; None: it has all."""
        self._oldest_utc_ns[sink] = time_utc_ns

    def _lag_s(self, sink: str) -> float:
        oldest = self._oldest_utc_ns.get(sink)
        return 0.0 if oldest is None else max(0.0, (time.time_ns() - oldest) / 1e9)
