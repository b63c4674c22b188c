"""Metrics of what a host shares with others: the cameras that it owns, its session, its writes to the log of events."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

CAUSES = ("free", "dead")


class ClusterMetrics:
    """Of one inference host of several."""

    def __init__(self, host: str, registry: CollectorRegistry) -> None:
        self._host = host
        self._owner = Gauge(
            "dasnet_camera_owner", "1 for each camera that a host owns.", ["camera", "host"], registry=registry
        )
        self.acquired = Counter(
            "dasnet_camera_acquired",
            "Cameras that this host began to own: free ones, and those of a host whose session is over (dead).",
            ["camera", "cause"],
            registry=registry,
        )
        self.connected = Gauge("dasnet_nats_connected", "1 while connected to a NATS server.", registry=registry)
        self.renewals_failed = Counter(
            "dasnet_lease_renewals_failed", "Renewals of this host's leases that failed or had no answer.",
            registry=registry,
        )  # fmt: skip
        self.fenced = Counter(
            "dasnet_events_fenced",
            "Events left in this host's own store: another host owned the camera before they were known to be shared.",
            ["camera"],
            registry=registry,
        )
        self.received = Counter(
            "dasnet_events_received", "Events of other hosts that were stored.", ["host"], registry=registry
        )
        self._cameras: frozenset[str] = frozenset()

    def watch(self, cameras: Iterable[str]) -> None:
        """Create the series of these cameras and remove those of others."""
        watched = frozenset(cameras)
        for camera in self._cameras - watched:
            for metric in (self._owner, self.acquired, self.fenced):
                metric.remove_by_labels({"camera": camera})
        for camera in watched - self._cameras:
            self._owner.labels(camera, self._host)
            self.fenced.labels(camera)
            for cause in CAUSES:
                self.acquired.labels(camera, cause)
        self._cameras = watched

    def own(self, tokens: Mapping[str, int]) -> None:
        """Show which cameras this host owns."""
        for camera in self._cameras:
            self._owner.labels(camera, self._host).set(camera in tokens)
