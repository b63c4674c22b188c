"""Metrics of a camera whose pose is read by ONVIF, in its capture worker."""

from prometheus_client import CollectorRegistry, Counter, Gauge

POSE_FAILURES = ("unreachable", "credentials", "no_ptz", "answer", "zoom", "queue")


class PoseMetrics:
    """Without samples until the pose is read for the first time: most cameras do not turn."""

    def __init__(self, camera: str, registry: CollectorRegistry) -> None:
        self._camera = camera
        text = "Of a camera that turns: 1 while it tells where it looks; otherwise tracks have no bearing."
        self._known = Gauge("dasnet_pose_known", text, ["camera"], registry=registry)
        text = (
            "Poses that a camera that turns did not tell, by cause: unreachable, credentials, no_ptz, answer, zoom (a "
            "position without a field of view), queue (not sent to the track worker)."
        )
        self._failed = Counter("dasnet_pose_failures", text, ["camera", "cause"], registry=registry)

    def known(self, is_known: bool) -> None:
        """Record whether the camera tells where it looks."""
        self._known.labels(self._camera).set(is_known)

    def failed(self, cause: str) -> None:
        """Count a pose that was not told or not passed on."""
        self._failed.labels(self._camera, cause).inc()

    def start(self) -> None:
        """Create the series."""
        self.known(False)
        for cause in POSE_FAILURES:
            self._failed.labels(self._camera, cause)
