"""Metrics of the store, its snapshots and retention."""

from prometheus_client import CollectorRegistry, Counter, Gauge

STORE_FAILING, EVENTS_WAITING = "dasnet_store_failing", "dasnet_events_waiting"
# memory, exit: written neither to the store nor to the spill file; invalid: NaN; unreadable: damaged spill file;
# damaged: undelivered, in a store that was damaged or removed; expired: undelivered when retention deleted them.
EVENT_LOSSES = ("memory", "exit", "invalid", "unreadable", "damaged", "expired")
SNAPSHOT_LOSSES = ("disk", "overload", "malformed")


class StoreMetrics:
    """Metrics of the store, its snapshots and retention."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.failing = Gauge(STORE_FAILING, "1 while the store cannot be written.", registry=registry)
        self.waiting = Gauge(EVENTS_WAITING, "Events queued for the store.", registry=registry)
        self.lost = Counter("dasnet_events_lost", "Events lost, by cause.", ["cause"], registry=registry)
        self.snapshots_lost = Counter(
            "dasnet_snapshots_lost", "Snapshots lost, by cause.", ["cause"], registry=registry
        )
        self.tracks_lost = Counter(
            "dasnet_track_updates_lost",
            "Track states dropped while the store could not be written.",
            registry=registry,
        )
        self.deleted_bytes = Counter(
            "dasnet_retention_deleted_bytes", "Disk space freed by retention.", registry=registry
        )
        self.excess_bytes = Gauge(
            "dasnet_retention_excess_bytes", "Bytes over the limits that are not deletable.", registry=registry
        )
        self.retention_run = Gauge(
            "dasnet_retention_last_run_timestamp_seconds",
            "Time of the last complete run of retention.",
            registry=registry,
        )
        for cause in EVENT_LOSSES:
            self.lost.labels(cause)
        for cause in SNAPSHOT_LOSSES:
            self.snapshots_lost.labels(cause)
