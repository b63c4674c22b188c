"""Requests for clips: the track worker tells a camera's capture worker when an alert opens and when it ends.

In: events.  Out: a message for each that opens or ends an alert, on the socket of the camera's capture worker; see
`pipeline.capture.clip_recorder`.  A message that does not fit into a socket's queue is counted: that clip is lost.
"""

from collections.abc import Iterable

import structlog
import zmq

from pipeline.config.models import Config
from pipeline.store.metrics import UNREQUESTED
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.tracking.edge_clips import EdgeClips
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.sockets import Socket, connected
from pipeline.transport.wire import ClipRequest, encode
from pipeline.types import Event, EventKind

MAX_QUEUED = 64  # per camera, while its capture worker is replaced


def clip_request(event: Event) -> ClipRequest | None:
    """Return the request that an event makes, or None."""
    track = event.track
    if track is None or event.alert is None:
        return None
    first_pts_s = track.first_seen.pts_s
    if event.kind is EventKind.ALERT_OPENED:
        return ClipRequest(event.camera, event.session, event.alert, first_pts_s)
    is_lowered_to_its_end = event.kind is EventKind.ALERT_LOWERED and not track.is_target
    if event.kind is EventKind.ALERT_ENDED or is_lowered_to_its_end:
        return ClipRequest(event.camera, event.session, event.alert, first_pts_s, event.pts_s)
    return None


class ClipRequests:
    """Sockets to the capture workers of this host, connected at a camera's first alert, and clips of edge hosts."""

    def __init__(self, config: Config, metrics: TrackingMetrics, edge_clips: EdgeClips | None) -> None:
        self._edge_clips = edge_clips
        self._lost = metrics.clips_lost
        self._sockets: dict[str, Socket] = {}
        self._log = structlog.get_logger()
        self.watch(config)

    def watch(self, config: Config) -> None:
        """Apply a new configuration."""
        recorded = config.cameras if config.recording.enabled else []
        self._local = frozenset(camera.id for camera in recorded if camera.host is None)
        self._remote = frozenset(camera.id for camera in recorded if camera.host is not None)
        for camera in self._sockets.keys() - self._local:
            self._sockets.pop(camera).close()

    def send(self, events: Iterable[Event]) -> None:
        """Request the clips of these events' alerts, without blocking."""
        for event in events:
            request = clip_request(event)
            if request is None:
                continue
            if event.camera in self._local:
                self._send(request)
            elif event.camera in self._remote and self._edge_clips is not None:
                self._edge_clips.request(request)

    def close(self) -> None:
        """Close the sockets."""
        for socket in self._sockets.values():
            socket.close()

    def _send(self, request: ClipRequest) -> None:
        camera = request.camera
        if camera not in self._sockets:
            endpoint = Endpoints.clips(camera)
            self._sockets[camera] = connected(zmq.PUSH, endpoint, MAX_QUEUED, linger_ms=500, patient=True)
        try:
            self._sockets[camera].send_multipart(encode(request), flags=zmq.DONTWAIT)
        except zmq.Again:
            if request.end_pts_s is None:
                self._lost.labels(camera, UNREQUESTED).inc()
            self._log.warning("clip not requested: the capture worker does not answer", camera=camera)
