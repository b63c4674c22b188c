"""SAPIENT sink: each camera is a node of BSI Flex 335 v2, over a TCP connection of its own.

In: events from the outbox, the tracks of active alerts in the store.  Out, per camera:

    Registration      first, and its acknowledgement awaited
    StatusReport      every STATUS_S, and whenever the camera goes up, down or blind
    DetectionReport   of tracks of active alerts, with bearing and without range, at most RATE_HZ times a second
    Alert             every event of an alert

A middleware refuses what is older than 0.9 s.  So detections are live only: those that are late are not sent.  An alert
is sent however late it is, stamped with the time of sending, with its own time in its text.
"""

import time
from collections import defaultdict
from collections.abc import Sequence

import structlog

from pipeline.config.camera import Camera
from pipeline.config.models import Config
from pipeline.config.tactical import SapientSinkConfig
from pipeline.sinks.camera_states import CAMERA_KINDS
from pipeline.sinks.filters import cameras_of, wants_alert, wants_event
from pipeline.sinks.identity import camera_id, site_id
from pipeline.sinks.sapient_link import NodeLink
from pipeline.sinks.sapient_messages import Node
from pipeline.sinks.sapient_registration import STATUS_S
from pipeline.sinks.sink import RefusedError, Sink, SinkError
from pipeline.sinks.unconfirmed import Unconfirmed
from pipeline.store.reader import StoreReader
from pipeline.types import Event, Track, TrackState

BATCH = 50  # events
POLL_S = 0.2  # of the store, which has the newest tracks twice a second
RATE_HZ = 12.0  # a middleware refuses detections of one node that are less than 80 ms apart
MAX_AGE_S = 0.8  # of a detection; a middleware refuses it at 0.9
REPLY_S = 0.3  # in which a middleware answers that it refuses a message
MAX_ALERTS, MAX_TRACKS = 100, 1000
_ALIVE = (TrackState.CONFIRMED, TrackState.COASTING)


class SapientSink(Sink):
    """Send to one middleware or fusion node."""

    batch_size = BATCH
    poll_s = POLL_S

    def __init__(self, entry: SapientSinkConfig, config: Config) -> None:
        super().__init__(entry.name or entry.type, self._wants)
        self._entry = entry
        self._run_dir = config.run_dir
        self._cameras: dict[str, Camera] = {}  # also those that were removed: their alerts must end
        self._current: frozenset[str] = frozenset()
        self._links: dict[str, NodeLink] = {}  # by camera
        self._unconfirmed = Unconfirmed()
        self._is_late = False  # said
        self._log = structlog.get_logger()
        self.watch(config)

    def watch(self, config: Config) -> None:
        """Take the cameras of a configuration."""
        watched = cameras_of(self._entry, config)
        self._cameras = self._cameras | {camera.id: camera for camera in watched}
        self._current = frozenset(camera.id for camera in watched)
        unplaced = [camera.id for camera in watched if camera.pose is None]
        if unplaced:
            self._log.warning("cameras without a pose send no detections", sink=self.name, cameras=unplaced)

    def _wants(self, event: Event) -> bool:
        is_told = (event.alert is not None and event.is_alert) or event.kind in CAMERA_KINDS
        return is_told and event.camera in self._cameras and wants_event(self._entry, event)

    def open(self) -> None:
        """Register every camera, and send again what the last connections may not have delivered.  Raise SinkError."""
        self._follow_cameras()
        self._transmit(self._unconfirmed.events())

    def send(self, events: Sequence[Event]) -> None:
        """Send alerts and states of cameras, and wait shortly for refusals.  Raise SinkError, or RefusedError."""
        self._transmit(events)

    def idle(self, reader: StoreReader) -> None:
        """Send what is due, and read replies.  Raise SinkError."""
        self._unconfirmed.is_alive()
        self._follow_cameras()
        now_s = time.monotonic()
        for camera, link in self._links.items():
            if now_s - link.reported_s >= STATUS_S:
                link.send(link.status(reader.newest(camera, CAMERA_KINDS), time.time_ns()))
                link.reported_s = now_s
        for camera, tracks in self._seen(reader).items():
            self._report(self._links[camera], tracks)
        errors = [f"{link.place}: {error}" for link in self._links.values() for error in link.errors()]
        if errors:
            raise SinkError("; ".join(errors))

    def close(self) -> None:
        """Say goodbye, and disconnect."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    def _follow_cameras(self) -> None:
        """Register cameras that were added or changed, and say goodbye for those that were removed."""
        current = self._current
        for name in self._links.keys() - current:
            self._links.pop(name).close()
        for name in current:
            self._link(name)

    def _link(self, name: str) -> NodeLink:
        camera, link = self._cameras[name], self._links.get(name)
        if link is not None and (link.node.band, link.node.pose) != (camera.band, camera.pose):
            self._links.pop(name).close()
            link = None
        if link is None:
            node = Node(camera_id(site_id(self._run_dir), name), name, camera.band, camera.pose)
            link = self._links[name] = NodeLink(self._entry, node)
        return link

    def _transmit(self, events: Sequence[Event]) -> None:
        self._unconfirmed.sent(events)
        try:
            for event in events:
                link = self._link(event.camera)
                link.send(self._message(link, event))
            links = [self._links[camera] for camera in dict.fromkeys(event.camera for event in events)]
            for link in links:
                link.flush()
            errors = [f"{link.place}: {error}" for link in links for error in link.errors(REPLY_S)]
            if errors:
                raise RefusedError("; ".join(errors))
        except RefusedError:
            self._unconfirmed.forget(events)
            raise

    def _message(self, link: NodeLink, event: Event) -> bytes:
        now_ns = time.time_ns()
        try:
            return link.node.alert(event, now_ns) if event.is_alert else link.status(event, now_ns)
        except ValueError as error:  # the standard's classes: it will never do
            raise RefusedError(f"event {event.id} is no SAPIENT message ({error})") from error

    def _seen(self, reader: StoreReader) -> dict[str, list[Track]]:
        """Return the newest states of the tracks of active alerts, by camera with a pose."""
        alerts = [alert for alert in reader.alerts(MAX_ALERTS, "active") if wants_alert(self._entry, alert)]
        wanted = {track.ulid for alert in alerts for track in alert.tracks}
        seen: dict[str, list[Track]] = defaultdict(list)
        for track in reader.tracks(MAX_TRACKS) if wanted else ():
            if track.ulid in wanted and track.state in _ALIVE and track.camera in self._links:
                seen[track.camera].append(track)
        return seen

    def _report(self, link: NodeLink, tracks: Sequence[Track]) -> None:
        """Send the detections of the newest frame, if it is new and not too late."""
        frame_ns = max(track.last_seen.received_utc_ns for track in tracks)
        if frame_ns < link.seen_ns + 1e9 / RATE_HZ:
            return
        link.seen_ns = frame_ns
        age_s = (time.time_ns() - frame_ns) / 1e9
        if age_s > MAX_AGE_S:
            if not self._is_late:
                self._log.warning("detections too late to be sent", sink=self.name, age_s=round(age_s, 1))
            self._is_late = True
            return
        for track in tracks:
            if track.last_seen.received_utc_ns == frame_ns and track.bearing is not None:
                link.send(link.node.detection(track, track.bearing))
