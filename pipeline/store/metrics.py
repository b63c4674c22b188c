"""Metrics of the store, snapshots, clips and retention."""

from prometheus_client import CollectorRegistry, Counter, Gauge

STORE_FAILING, EVENTS_WAITING = "dasnet_store_failing", "dasnet_events_waiting"
# memory, exit: written neither to the store nor to the spill file; invalid: NaN; unreadable: damaged spill file;
# damaged: undelivered, in a store that was damaged or removed; expired: undelivered when retention deleted them.
EVENT_LOSSES = ("memory", "exit", "invalid", "unreadable", "damaged", "expired")
SNAPSHOT_LOSSES = ("disk", "overload", "malformed")
# disk: not writable; codec: not in MP4; empty: no packet in memory; overload: too many clips at once;
# session, killed: the capture worker was replaced before the clip began, or before anything of it was written;
# link: the link from an edge host was too slow, or its camera was removed before the clip was fetched.
CLIP_LOSSES = ("disk", "codec", "empty", "overload", "session", "killed", "link")
UNREQUESTED = "unrequested"  # the track worker could not reach the capture worker
CHECKSUM = "checksum"  # a clip from an edge host was damaged, again and again


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


class ClipMetrics:
    """Metrics of a camera's clips and of the packets in memory, in its capture worker."""

    def __init__(self, camera: str, registry: CollectorRegistry) -> None:
        per_camera, text = ["camera"], "Clips written, incomplete ones included."
        self.written = Counter("dasnet_clips_written", text, per_camera, registry=registry).labels(camera)
        text = "Clips that were cut off, or in which the first detection or other packets are missing."
        self.incomplete = Counter("dasnet_clips_incomplete", text, per_camera, registry=registry).labels(camera)
        self._lost = clips_lost(registry)
        text = "Time between the oldest and the newest packet in memory."
        self.ring_s = Gauge("dasnet_recording_ring_seconds", text, per_camera, registry=registry).labels(camera)
        text = "Memory of the newest packets."
        self.ring_bytes = Gauge("dasnet_recording_ring_bytes", text, per_camera, registry=registry).labels(camera)
        self._camera = camera
        for cause in CLIP_LOSSES:
            self._lost.labels(camera, cause)

    def lost(self, cause: str) -> None:
        """Count an alert without a clip."""
        self._lost.labels(self._camera, cause).inc()


def clips_lost(registry: CollectorRegistry) -> Counter:
    """Return the counter of alerts without a clip, which two workers have."""
    return Counter("dasnet_clips_lost", "Alerts without a clip, by cause.", ["camera", "cause"], registry=registry)
