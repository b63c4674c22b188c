"""Cursor-on-Target sink: cameras and bearings of their alerts on the map of a TAK server or of TAK clients.

In: events from the outbox, the active alerts in the store.  Out, for each camera with a pose:

    b-m-p-s-p-loc   the camera and its field of view, every CAMERA_PERIOD_S and whenever it goes up, down or blind
    u-d-f           per alert a line from the camera towards the target: at its events, and every REFRESH_S that it is
                    seen; gone with the alert
    a-u-A           where its target is, while two cameras see it

No protocol of TAK acknowledges: see `unconfirmed`.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import structlog

from pipeline.config.camera import Pose
from pipeline.config.models import Config
from pipeline.config.tactical import CotSinkConfig
from pipeline.sinks.camera_states import CAMERA_KINDS, camera_state
from pipeline.sinks.connection import Connection, connected
from pipeline.sinks.cot_messages import LINE_STALE_S, Viewpoint
from pipeline.sinks.filters import cameras_of, wants_alert, wants_event
from pipeline.sinks.identity import camera_id, site_id
from pipeline.sinks.sink import Sink
from pipeline.sinks.unconfirmed import Unconfirmed
from pipeline.store.reader import StoreReader
from pipeline.types import Bearing, Event, EventKind, Position, Severity, Track

CAMERA_PERIOD_S = 20.0  # a third of the time until it is stale
REFRESH_S = 1.0
BATCH = 50  # events
MAX_ALERTS, MAX_TRACKS = 100, 1000
_LINE_KINDS = (EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED, EventKind.ALERT_LOWERED, EventKind.ALERT_ENDED)


class _Line(NamedTuple):
    """A bearing line that is shown."""

    camera: str
    title: str
    severity: Severity
    bearing: Bearing
    time_ns: int
    position: Position | None = None


class CotSink(Sink):
    """Send to one TAK server, TAK client or multicast group."""

    batch_size = BATCH
    poll_s = REFRESH_S

    def __init__(self, entry: CotSinkConfig, config: Config) -> None:
        super().__init__(entry.name or entry.type, self._wants)
        self._entry = entry
        self._run_dir = config.run_dir
        self._poses: dict[str, Pose] = {}  # also of cameras that were removed: their lines must end
        self._current: frozenset[str] = frozenset()  # cameras with a pose
        self._viewpoints: dict[str, Viewpoint] = {}  # by camera, as they were sent
        self._connection: Connection | None = None
        self._unconfirmed = Unconfirmed()
        self._lines: dict[str, _Line] = {}  # by alert
        self._announced_s = self._refreshed_s = 0.0
        self.watch(config)

    def watch(self, config: Config) -> None:
        """Take the cameras of a configuration."""
        watched = cameras_of(self._entry, config)
        placed = {camera.id: camera.pose for camera in watched if camera.pose is not None}
        self._poses = self._poses | placed
        self._current = frozenset(placed)
        unplaced = [camera.id for camera in watched if camera.pose is None]
        if unplaced:
            structlog.get_logger().warning("cameras without a pose are not sent", sink=self.name, cameras=unplaced)

    def _wants(self, event: Event) -> bool:
        is_told = event.kind in (*CAMERA_KINDS, *_LINE_KINDS)
        return is_told and event.camera in self._poses and wants_event(self._entry, event)

    def open(self) -> None:
        """Connect, and send again what the last connection may not have delivered.  Raise SinkError."""
        self._connection = connected(self._entry)
        self._announced_s = self._refreshed_s = float("-inf")
        self._transmit(self._unconfirmed.events())

    def send(self, events: Sequence[Event]) -> None:
        """Send what the map shows of events, with their times.  Raise SinkError."""
        self._transmit(events)

    def idle(self, reader: StoreReader) -> None:
        """Send the cameras, and where the targets of active alerts are now.  Raise SinkError."""
        connection = self._open_connection()
        connection.receive()  # a server sends what others tell it: read, so that it need not wait
        self._unconfirmed.is_alive()
        now_s = time.monotonic()
        current, known = self._current, dict(self._viewpoints)
        viewpoints = {camera: self._viewpoint(camera) for camera in current}
        is_due = now_s - self._announced_s >= CAMERA_PERIOD_S
        self._announced_s = now_s if is_due else self._announced_s
        for camera, viewpoint in viewpoints.items():
            if is_due or viewpoint is not known.get(camera):
                connection.send(viewpoint.camera(camera_state(reader.newest(camera, CAMERA_KINDS)), time.time_ns()))
        if now_s - self._refreshed_s >= REFRESH_S:
            self._refreshed_s = now_s
            self._refresh(connection, reader)

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _viewpoint(self, camera: str) -> Viewpoint:
        pose, known = self._poses[camera], self._viewpoints.get(camera)
        if known is None or known.pose is not pose:
            uid = f"dasnet.{camera_id(site_id(self._run_dir), camera)}"
            known = self._viewpoints[camera] = Viewpoint(uid, camera, pose, self._entry.line_m)
        return known

    def _open_connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def _transmit(self, events: Sequence[Event]) -> None:
        connection = self._open_connection()
        self._unconfirmed.sent(events)
        for event in events:
            for message in self._messages(event):
                connection.send(message)
        connection.flush()
        connection.receive()

    def _messages(self, event: Event) -> Iterator[bytes]:
        viewpoint = self._viewpoint(event.camera)
        if event.kind in CAMERA_KINDS:
            yield viewpoint.camera(camera_state(event), event.time_utc_ns)
        elif event.alert is not None:
            line = _line(event.track, event.severity, event.time_utc_ns) if event.track is not None else None
            if event.ends_alert:
                line = line or self._lines.get(event.alert)
            if line is not None:
                show = self._removal if event.ends_alert else self._shown
                yield from show(event.alert, line._replace(time_ns=event.time_utc_ns))

    def _refresh(self, connection: Connection, reader: StoreReader) -> None:
        """Send the lines whose targets were seen since, and remove those whose end the filter withholds."""
        alerts = {alert.id: alert for alert in reader.alerts(MAX_ALERTS, "active")}
        for alert_id, line in [item for item in self._lines.items() if item[0] not in alerts]:
            ended = reader.alert(alert_id)
            gone_ns = ended.ended_utc_ns if ended is not None else None
            for message in self._removal(alert_id, line._replace(time_ns=gone_ns or time.time_ns())):
                connection.send(message)
        wanted = [alert for alert in alerts.values() if alert.camera in self._poses and wants_alert(self._entry, alert)]
        tracks = {track.ulid: track for track in reader.tracks(MAX_TRACKS)} if wanted else {}
        for alert in wanted:
            track = tracks.get(alert.track)
            newest = _line(track, alert.severity, track.last_seen.received_utc_ns) if track is not None else None
            if newest is not None and self._is_news(alert.id, newest):
                for message in self._shown(alert.id, newest):
                    connection.send(message)

    def _is_news(self, alert: str, line: _Line) -> bool:
        shown = self._lines.get(alert)
        return shown is None or line.time_ns > shown.time_ns

    def _shown(self, alert: str, line: _Line) -> list[bytes]:
        self._lines[alert] = line
        return self._drawn(alert, line, LINE_STALE_S)

    def _removal(self, alert: str, line: _Line) -> list[bytes]:
        shown = self._lines.pop(alert, None)
        return self._drawn(alert, line._replace(position=line.position or (shown and shown.position)), 0)

    def _drawn(self, alert: str, line: _Line, stale_s: float) -> list[bytes]:
        viewpoint, title, time_ns = self._viewpoint(line.camera), line.title, line.time_ns
        messages = [viewpoint.line(alert, title, line.severity, line.bearing, time_ns, stale_s)]
        if line.position is not None:
            messages.append(viewpoint.target(alert, title, line.position, time_ns, stale_s))
        return messages


def _line(track: Track, severity: Severity, time_ns: int) -> _Line | None:
    if track.bearing is None:
        return None
    return _Line(
        track.camera, f"{track.camera}: {track.label} #{track.id}", severity, track.bearing, time_ns, track.position
    )
