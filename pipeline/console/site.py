"""What the console knows: cameras, live frames, alerts, events, tracks; kept current and handed to the hub.

In: the live endpoint (ZeroMQ), the ledgers and the store.  Out: the hub's topics `frame` (one a camera), `site`,
`alerts`, `events` and `tracks`, and the same for single requests.  A store that cannot be read is said to be so, never
shown as one without alerts.
"""

import asyncio
import http.client
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import zmq
import zmq.asyncio
from prometheus_client import Counter

from pipeline.config.models import Config
from pipeline.console.cameras import Cameras, CameraStatus
from pipeline.console.frames import LiveFrames
from pipeline.console.history import FINE_S, History
from pipeline.console.hub import Hub
from pipeline.errors import ConfigError, StoreError, WireError
from pipeline.redaction import redact
from pipeline.runtime.control import Changes
from pipeline.store.store import Alert, StoreReader
from pipeline.telemetry.metrics import WorkerMetrics
from pipeline.transport.live import MAX_MESSAGE_BYTES, TOPIC, LiveFrame
from pipeline.transport.rejects import RejectLog
from pipeline.types import Event, Track

T = TypeVar("T")
NEWS_S = 0.25  # how often the store is asked for a new event
PERIOD_S = 1.0  # how often everything is looked at
SHOWN = 50  # alerts, events and tracks in the page
METRICS_TIMEOUT_S = 2.0
MAX_METRICS_BYTES = 16 << 20

MetricsAddress = Callable[[], str | None]


def unknown() -> None:
    """Where the metrics are: no supervisor runs here, or its address is not free yet."""


class LiveUpdate(msgspec.Struct, frozen=True):
    """One event of the topic `frame`."""

    frame: LiveFrame
    picture: bool  # can be fetched


class SiteStatus(msgspec.Struct, frozen=True):
    now_utc_ns: int
    cameras: list[CameraStatus]
    received: int  # live messages
    refused: int
    store_error: str | None
    metrics: str | None  # address
    has_login: bool  # a password is set


class Site:
    def __init__(
        self,
        config: Config,
        metrics: MetricsAddress = unknown,
        refused: Counter | None = None,
        changes: Changes = tuple,
    ) -> None:
        self.config = config
        self._changes = changes
        self.hub = Hub()
        self.frames = LiveFrames(camera.id for camera in config.cameras)
        self.history = History(config.objective.capture_to_track_ms / 1e3)
        self.store_error: str | None = None
        self._metrics = metrics
        self._cameras = Cameras(config)
        self._reader: StoreReader | None = None
        self._reader_turn = threading.Lock()
        self._store_turn = asyncio.Lock()
        self._sent: dict[str, bytes] = {}
        self._refusals = RejectLog("live", refused or WorkerMetrics("console").refused)

    def status(self) -> SiteStatus:
        """Blocks; from any thread."""
        cameras = self._cameras.look(self.frames)
        counts = (self.frames.received, self.frames.refused)
        has_login = self.config.console.password_file is not None
        return SiteStatus(time.time_ns(), cameras, *counts, self.store_error, self._metrics(), has_login)

    def stored(self, query: Callable[[StoreReader], T]) -> T:
        """Blocks; from any thread.  Raises StoreError, and opens the store again next time."""
        with self._reader_turn:
            try:
                if self._reader is not None and not self._reader.is_current():
                    self._close_reader()
                if self._reader is None:
                    self._reader = StoreReader(self.config.store_path)
                result = query(self._reader)
            except StoreError as error:
                self._close_reader()
                self.store_error = redact(str(error))
                raise
            self.store_error = None
            return result

    def close(self) -> None:
        with self._reader_turn:
            self._close_reader()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def follow_frames(self, endpoint: str) -> None:
        """Receives live messages for ever.  The track worker may come and go; ZeroMQ connects again."""
        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger, socket.rcvhwm = 0, 200
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
            socket.subscribe(TOPIC)
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as error:
                raise ConfigError(f"live endpoint {endpoint!r} cannot be connected to: {error}") from error
            while True:
                self._receive(await socket.recv_multipart())
                await asyncio.sleep(0)  # a flood of messages must not keep the loop from all else

    def _receive(self, message: list[bytes]) -> None:
        try:
            frame, picture = self.frames.receive(message)
        except WireError as error:
            self._refusals.reject(error)
            return
        self.hub.publish("frame", msgspec.json.encode(LiveUpdate(frame, picture)), key=frame.camera)

    async def follow_store_and_cameras(self) -> None:
        """Everything once a second, and at once when an event was stored."""
        last_row, looked_s = -1, -PERIOD_S
        while True:
            for config in self._changes():
                self._watch(config)
            row = await asyncio.to_thread(self._newest_row)
            if row != last_row or time.monotonic() - looked_s >= PERIOD_S:
                last_row, looked_s = row, time.monotonic()
                await self.publish_stored()
                self._publish_change("site", msgspec.json.encode(await asyncio.to_thread(self.status)))
            await asyncio.sleep(NEWS_S)

    async def publish_stored(self) -> None:
        """To all browsers, what changed of alerts, events and tracks."""
        async with self._store_turn:  # else what was read first could be published last
            for topic, items in (await asyncio.to_thread(self._shown)).items():
                self._publish_change(topic, msgspec.json.encode(items))

    async def follow_metrics(self) -> None:
        """Asks the host's `/metrics` for ever."""
        while True:
            address = await asyncio.to_thread(self._metrics)
            try:
                if address is None:
                    self.history.error = "the address of the metrics is not known: no supervisor serves them here"
                else:
                    text = await asyncio.to_thread(_fetch, address)
                    await asyncio.to_thread(self.history.receive, text, time.time())
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.history.error = redact(f"{address} does not answer: {error or type(error).__name__}")
            await asyncio.sleep(FINE_S)

    def _watch(self, config: Config) -> None:
        """The cameras of the site from now on."""
        self.config = config
        self.frames.watch(camera.id for camera in config.cameras)
        self._cameras.watch(config)

    def _newest_row(self) -> int:
        try:
            return self.stored(lambda reader: reader.last_row())
        except StoreError:
            return 0

    def _shown(self) -> dict[str, list[Alert] | list[Event] | list[Track]]:
        """Nothing where the store cannot be read: the page keeps what it has, and shows the error."""
        try:
            return self.stored(_newest)
        except StoreError:
            return {}

    def _publish_change(self, topic: str, data: bytes) -> None:
        if self._sent.get(topic) != data:
            self._sent[topic] = data
            self.hub.publish(topic, data)


def _newest(reader: StoreReader) -> dict[str, list[Any]]:
    active = reader.alerts(SHOWN, active_only=True)
    known = {alert.id for alert in active}
    return {
        "alerts": active + [alert for alert in reader.alerts(SHOWN) if alert.id not in known],
        "events": [stored.event for stored in reader.events(SHOWN)],
        "tracks": reader.tracks(SHOWN),
    }


def _fetch(address: str) -> str:
    """Raises OSError, ValueError or HTTPException."""
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
