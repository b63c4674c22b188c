"""The console's view of the site: cameras, live frames, alerts, events and tracks, published through the hub.

Reads the live endpoint (ZeroMQ), the ledgers and the store.  Publishes the topics `frame` (per camera), `site`,
`alerts`, `events` and `tracks` to every user as the user may see them, and serves the same data to single requests.
A store that cannot be read is reported as an error, never shown as one without alerts.
"""

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Set
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import zmq
import zmq.asyncio

from pipeline.config.models import Config
from pipeline.config.users import User, UserRole
from pipeline.console.cameras import CameraMonitor, CameraStatus
from pipeline.console.frames import LiveFrames
from pipeline.console.history import FINE_S, History
from pipeline.console.hub import Cameras, Hub
from pipeline.console.view import shown_alert, shown_event
from pipeline.errors import ConfigError, StoreError, WireError
from pipeline.redaction import redact
from pipeline.runtime.arming import is_armed
from pipeline.runtime.control import Changes
from pipeline.store.history_reader import AlertFilter, EventFilter, HistoryReader
from pipeline.telemetry.alert_metrics import ReviewMetrics
from pipeline.telemetry.metrics import WorkerMetrics
from pipeline.transport.live import MAX_MESSAGE_BYTES, TOPIC, LiveFrame
from pipeline.transport.rejects import RejectLog

T = TypeVar("T")
EVENT_POLL_S = 0.25  # between checks for new events in the store
PERIOD_S = 1.0  # between updates of everything else
LISTED = 50  # alerts, events and tracks on the page, each
LISTED_UNACKNOWLEDGED = 200  # alerts that wait for an operator, alarms first
METRICS_TIMEOUT_S = 2.0
MAX_METRICS_BYTES = 16 << 20

MetricsAddress = Callable[[], str | None]


def unknown() -> None:
    """Return None: no supervisor runs here, or its address cannot be bound yet."""


class LiveUpdate(msgspec.Struct, frozen=True):
    """An event of the topic `frame`."""

    frame: LiveFrame
    picture: bool  # whether its image can be fetched


class SiteStatus(msgspec.Struct, frozen=True):
    """An event of the topic `site`."""

    now_utc_ns: int
    cameras: list[CameraStatus]
    received: int  # live messages
    refused: int
    store_error: str | None
    metrics: str | None  # address
    has_login: bool  # a log-in is needed
    armed: bool | None  # None: no rule depends on it


class Site:
    """Live data of the site."""

    def __init__(
        self,
        config: Config,
        metrics: MetricsAddress = unknown,
        own: WorkerMetrics | None = None,
        changes: Changes = tuple,
    ) -> None:
        own = own or WorkerMetrics("console")
        self.config = config
        self.reviews = ReviewMetrics(own.registry)
        self._changes = changes
        self.hub = Hub()
        self.frames = LiveFrames(camera.id for camera in config.cameras)
        self.history = History(config.objective.capture_to_track_ms / 1e3)
        self.store_error: str | None = None
        self._metrics = metrics
        self._cameras = CameraMonitor(config)
        self._reader: HistoryReader | None = None
        self._reader_lock = threading.Lock()
        self._publish_lock = asyncio.Lock()
        self._sent: dict[tuple[Cameras, str], bytes] = {}
        self.stored_something = asyncio.Event()  # set and replaced at each new event in the store
        self._rejects = RejectLog("live", own.refused)

    def status(self) -> SiteStatus:
        """Return the status of the site; thread-safe, blocking."""
        cameras = self._cameras.status(self.frames)
        counts = (self.frames.received, self.frames.refused)
        has_login = self.config.console.has_login
        armed = is_armed(self.config.run_dir) if self.config.has_arming else None
        return SiteStatus(time.time_ns(), cameras, *counts, self.store_error, self._metrics(), has_login, armed)

    def stored(self, query: Callable[[HistoryReader], T]) -> T:
        """Query the store; thread-safe, blocking.

        Raises:
            StoreError: It cannot be read; the next query reopens it.
        """
        with self._reader_lock:
            try:
                if self._reader is not None and not self._reader.is_current():
                    self._close_reader()
                if self._reader is None:
                    self._reader = HistoryReader(self.config.store_path)
                result = query(self._reader)
            except StoreError as error:
                self._close_reader()
                self.store_error = redact(str(error))
                raise
            self.store_error = None
            return result

    def close(self) -> None:
        """Close the store."""
        with self._reader_lock:
            self._close_reader()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def follow_frames(self, endpoint: str) -> None:
        """Receive live messages until cancelled; ZeroMQ reconnects when the track worker restarts."""
        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger, socket.rcvhwm = 0, 200
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
            socket.subscribe(TOPIC)
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as error:
                raise ConfigError(f"live endpoint {endpoint!r}: {error}; must be a ZeroMQ endpoint") from error
            while True:
                self._receive(await socket.recv_multipart())
                await asyncio.sleep(0)  # a flood of messages must not starve the event loop

    def _receive(self, message: list[bytes]) -> None:
        try:
            frame, picture = self.frames.receive(message)
        except WireError as error:
            self._rejects.reject(error)
            return
        self.hub.publish_frame(msgspec.json.encode(LiveUpdate(frame, picture)), frame.camera)

    async def follow_store_and_cameras(self) -> None:
        """Publish everything once per second, and immediately when an event was stored or a new audience came."""
        last: tuple[int, Set[Cameras]] = -1, set()
        updated_s = -PERIOD_S
        while True:
            for config in self._changes():
                self._set_cameras(config)
            row = await asyncio.to_thread(self._newest_row)
            if row != last[0]:
                self.stored_something.set()
                self.stored_something = asyncio.Event()
            if (row, self._audiences()) != last or time.monotonic() - updated_s >= PERIOD_S:
                last, updated_s = (row, self._audiences()), time.monotonic()
                await self.publish_stored()
                self._publish_status(await asyncio.to_thread(self.status))
            await asyncio.sleep(EVENT_POLL_S)

    def _audiences(self) -> Set[Cameras]:
        return {None} | self.hub.audiences

    async def publish_stored(self) -> None:
        """Publish alerts, events and tracks where they changed."""
        async with self._publish_lock:  # keeps publications in the order of reading
            audiences = self._audiences()
            self._sent = {key: data for key, data in self._sent.items() if key[0] in audiences}
            self.hub.retain(audiences)
            for cameras in audiences:
                for topic, items in (await asyncio.to_thread(self._listed, cameras)).items():
                    self._publish_change(topic, msgspec.json.encode(items), cameras)

    def _publish_status(self, status: SiteStatus) -> None:
        for cameras in self._audiences():
            own = [camera for camera in status.cameras if cameras is None or camera.id in cameras]
            self._publish_change("site", msgspec.json.encode(msgspec.structs.replace(status, cameras=own)), cameras)

    async def follow_metrics(self) -> None:
        """Poll the host's `/metrics` until cancelled."""
        while True:
            address = await asyncio.to_thread(self._metrics)
            try:
                if address is None:
                    self.history.error = "address of the metrics unknown: no supervisor serves them here"
                else:
                    text = await asyncio.to_thread(_fetch, address)
                    await asyncio.to_thread(self.history.receive, text, time.time())
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.history.error = redact(f"{address} does not answer: {error or type(error).__name__}")
            await asyncio.sleep(FINE_S)

    def _set_cameras(self, config: Config) -> None:
        """Set the cameras of the site."""
        self.config = config
        self.frames.set_cameras(camera.id for camera in config.cameras)
        self._cameras.set_cameras(config)

    def _newest_row(self) -> int:
        try:
            return self.stored(lambda reader: reader.last_row())
        except StoreError:
            return 0

    def _listed(self, cameras: Cameras) -> dict[str, list[Any]]:
        """Return the newest items; none where the store cannot be read: the page then keeps its items."""
        try:
            return self.stored(lambda reader: _newest_items(reader, cameras))
        except StoreError:
            return {}

    def _publish_change(self, topic: str, data: bytes, cameras: Cameras) -> None:
        if self._sent.get((cameras, topic)) != data:
            self._sent[cameras, topic] = data
            self.hub.publish(topic, data, cameras)


def _newest_items(reader: HistoryReader, cameras: Cameras) -> dict[str, list[Any]]:
    user = User("", UserRole.VIEWER, cameras)
    alerts = [
        *reader.search(AlertFilter(is_unacknowledged=True, cameras=cameras), LISTED_UNACKNOWLEDGED),
        *reader.search(AlertFilter("active", cameras=cameras), LISTED),
        *reader.search(AlertFilter(cameras=cameras), LISTED),
    ]
    events = reader.search_events(EventFilter(cameras=cameras), LISTED)
    return {
        "alerts": [shown_alert(alert, user) for alert in {alert.id: alert for alert in alerts}.values()],
        "events": [shown_event(event, user) for event in events],
        "tracks": reader.tracks_of(cameras, LISTED),
    }


def _fetch(address: str) -> str:
    """Return the text at an address; raise OSError, ValueError or HTTPException."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=METRICS_TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        content = answer.read(MAX_METRICS_BYTES)
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"status {answer.status}")
    return content.decode()
