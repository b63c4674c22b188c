"""Metrics of the store, its snapshots and retention."""

from prometheus_client import CollectorRegistry, Counter, Gauge

STORE_FAILING, EVENTS_WAITING = "dasnet_store_failing", "dasnet_events_waiting"
# memory, exit: neither store nor spill file took them; invalid, unreadable: not a number, a damaged spill file;
# damaged: undelivered, in a store that was damaged or removed; expired: undelivered when retention deleted them.
EVENT_LOSSES = ("memory", "exit", "invalid", "unreadable", "damaged", "expired")
SNAPSHOT_LOSSES = ("disk", "overload", "malformed")


class StoreMetrics:
    """What becomes of events, snapshots and their disk space."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.failing = Gauge(STORE_FAILING, "1 while the store takes no events.", registry=registry)
        self.waiting = Gauge(EVENTS_WAITING, "Events that wait for the store.", registry=registry)
        self.lost = Counter("dasnet_events_lost", "Events dropped, by cause.", ["cause"], registry=registry)
        self.snapshots_lost = Counter(
            "dasnet_snapshots_lost", "Snapshots that were not written, by cause.", ["cause"], registry=registry
        )
        self.tracks_lost = Counter(
            "dasnet_track_updates_lost",
            "Tracks whose newest state was dropped while the store failed.",
            registry=registry,
        )
        self.deleted_bytes = Counter(
            "dasnet_retention_deleted_bytes", "Disk space that retention gave back.", registry=registry
        )
        self.excess_bytes = Gauge(
            "dasnet_retention_excess_bytes", "Over the limits, and nothing left that may be deleted.", registry=registry
        )
        self.retention_run = Gauge(
            "dasnet_retention_last_run_timestamp_seconds", "When retention last ran to its end.", registry=registry
        )
        for cause in EVENT_LOSSES:
            self.lost.labels(cause)
        for cause in SNAPSHOT_LOSSES:
            self.snapshots_lost.labels(cause)
