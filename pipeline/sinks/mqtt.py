"""MQTT sink: events, snapshots and camera states on a broker, and discovery for Home Assistant.

In: events from the outbox, snapshots, the alerts in the store.  Out, all with QoS 1:

    TOPIC/status            online, or offline: retained, and the last will
    TOPIC/events            every event as JSON
    TOPIC/CAMERA/event      those of one camera
    TOPIC/CAMERA/snapshot   the JPEG of an alert, after its event
    TOPIC/CAMERA/alert      ON while the camera has an active alert that the filter passes
    TOPIC/CAMERA/problem    ON while the camera is down or blind
    DISCOVERY/device/ID/config   discovery, retained

States are not retained: a retained one would outlive the program.  They are sent after connecting, after each change,
and, with discovery, whenever Home Assistant announces its birth on DISCOVERY/status.
"""

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from pipeline.config.models import Config
from pipeline.config.sink import ClientTls
from pipeline.config.sinks import MqttSinkConfig
from pipeline.errors import StoreError
from pipeline.sinks.connection import client_context
from pipeline.sinks.filters import cameras_of, event_filter, wants_alert
from pipeline.sinks.home_assistant import OFF, OFFLINE, ON, ONLINE, device_id, discovery
from pipeline.sinks.sink import RefusedError, Sink, SinkError
from pipeline.sinks.snapshots import snapshot_of
from pipeline.store.reader import StoreReader
from pipeline.types import Event, EventKind

CONNECT_TIMEOUT_S = 5.0
ACKNOWLEDGE_TIMEOUT_S = 10.0  # of a batch
GOODBYE_TIMEOUT_S = 1.0
KEEPALIVE_S = 30
RECONNECT_S = (1, 60)  # shortest, longest; while there is nothing to send
BATCH = 20  # events: with snapshots some megabytes
MAX_ALERTS = 1000
QOS = 1
_VERSIONS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}
_PROBLEMS = {EventKind.CAMERA_UP: OFF, EventKind.CAMERA_DOWN: ON, EventKind.CAMERA_BLIND: ON}


class MqttSink(Sink):
    """Publish to one broker.  paho's thread keeps the connection while there is nothing to send."""

    batch_size = BATCH

    def __init__(self, entry: MqttSinkConfig, config: Config) -> None:
        super().__init__(entry.name or entry.type, event_filter(entry))
        self._entry = entry
        self._store_path = config.store_path
        self._snapshots = config.snapshots_path
        self.watch(config)
        self._cameras = self._configured  # those that are announced
        self._client: paho.Client | None = None
        self._answered = threading.Event()  # the broker, to the request to connect
        self._refusal: str | None = None  # its reason
        self._refused: dict[int, str] = {}  # reasons by message id
        self._log = structlog.get_logger()

    def watch(self, config: Config) -> None:
        """Take the cameras of a configuration, which are announced within a moment."""
        self._configured = tuple(camera.id for camera in cameras_of(self._entry, config))

    # Called by the outbox's thread

    def open(self) -> None:
        """Connect, and announce the site.  Raise SinkError."""
        self._answered.clear()
        self._refusal = None
        client = self._client = self._new_client()
        try:
            client.connect(self._entry.broker, self._entry.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise SinkError(f"{self._entry.host}: cannot connect ({error})") from None
        client.loop_start()
        if not self._answered.wait(CONNECT_TIMEOUT_S):
            raise SinkError(f"{self._entry.host}: no answer within {CONNECT_TIMEOUT_S:g} s")
        if self._refusal is not None:
            raise SinkError(f"{self._entry.host}: connection refused ({self._refusal})")

    def send(self, events: Sequence[Event]) -> None:
        """Publish events with their snapshots, then the states of their cameras.  Raise SinkError, or RefusedError."""
        client = self._client
        if client is None or not client.is_connected():
            raise SinkError(f"{self._entry.host}: not connected")
        self._follow_reload(client)
        self._refused.clear()
        sent: list[paho.MQTTMessageInfo] = []
        for event in events:
            sent += self._publish_event(client, event)
        for camera in dict.fromkeys(event.camera for event in events):
            self._publish_states(client, camera)
        self._wait_for(sent)

    def idle(self, _: StoreReader) -> None:
        """Announce the cameras that a reload added, and take back those that it removed."""
        if self._client is not None and self._client.is_connected():
            self._follow_reload(self._client)

    def close(self) -> None:
        """Say goodbye, which the last will only says for a connection that breaks, and disconnect."""
        client, self._client = self._client, None
        if client is None:
            return
        if client.is_connected():
            goodbye = client.publish(self._topic("status"), OFFLINE, QOS, retain=True)
            if goodbye.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                goodbye.wait_for_publish(GOODBYE_TIMEOUT_S)
        client.disconnect()
        client.loop_stop()

    def _new_client(self) -> paho.Client:
        entry = self._entry
        # An empty id: the broker gives one, for the outbox remembers what a session would.
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="", protocol=_VERSIONS[entry.version])
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(*RECONNECT_S)
        client.will_set(self._topic("status"), OFFLINE, QOS, retain=True)
        if entry.username is not None:
            client.username_pw_set(entry.username, entry.password)
        if entry.is_encrypted:
            client.tls_set_context(client_context(entry.tls or ClientTls(), self.name))
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _publish_event(self, client: paho.Client, event: Event) -> list[paho.MQTTMessageInfo]:
        content = msgspec.json.encode(event)
        sent = [self._publish(client, place, content) for place in ("events", f"{event.camera}/event")]
        if event.kind is EventKind.ALERT_OPENED:  # even if the alert has ended since
            self._publish(client, f"{event.camera}/alert", ON)
        jpeg = snapshot_of(event, self._snapshots)
        if jpeg is not None:
            sent.append(self._publish(client, f"{event.camera}/snapshot", jpeg))
        return sent

    def _wait_for(self, sent: Sequence[paho.MQTTMessageInfo]) -> None:
        """Wait until the broker has everything."""
        end_s = time.monotonic() + ACKNOWLEDGE_TIMEOUT_S
        for message in sent:
            try:
                message.wait_for_publish(max(0.0, end_s - time.monotonic()))
                is_published = message.is_published()
            except (RuntimeError, ValueError) as error:
                raise SinkError(f"{self._entry.host}: {error}") from None
            if not is_published:
                raise SinkError(f"{self._entry.host}: not acknowledged within {ACKNOWLEDGE_TIMEOUT_S:g} s")
        reasons = {self._refused[message.mid] for message in sent if message.mid in self._refused}
        if reasons:
            raise RefusedError(f"{self._entry.host}: refused ({', '.join(sorted(reasons))})")

    def _follow_reload(self, client: paho.Client) -> None:
        before, self._cameras = self._cameras, self._configured
        for camera in self._cameras:
            if camera not in before:
                self._announce(client, camera)
                self._publish_states(client, camera)
        for camera in before:
            if camera not in self._cameras and self._entry.discovery is not None:
                client.publish(self._discovery_topic(camera), b"", QOS, retain=True)

    # Called by either thread; none of these waits

    def _discovery_topic(self, camera: str) -> str:
        return f"{self._entry.discovery}/device/{device_id(self._entry.topic, camera)}/config"

    def _topic(self, place: str) -> str:
        return f"{self._entry.topic}/{place}"

    def _publish(self, client: paho.Client, place: str, payload: str | bytes) -> paho.MQTTMessageInfo:
        return client.publish(self._topic(place), payload, QOS)

    def _announce(self, client: paho.Client, camera: str) -> None:
        if self._entry.discovery is not None:
            client.publish(
                self._discovery_topic(camera), json.dumps(discovery(self._entry.topic, camera)), QOS, retain=True
            )

    def _publish_states(self, client: paho.Client, camera: str) -> None:
        """Publish the states as the store has them: they may be newer than the events that are being sent."""
        try:
            with StoreReader(self._store_path) as reader:
                alerts = reader.alerts(MAX_ALERTS, "active")
                newest = reader.newest(camera, tuple(_PROBLEMS))
        except StoreError as error:
            self._log.debug("states not published", sink=self.name, reason=str(error))
            return
        is_alerted = any(alert.camera == camera and wants_alert(self._entry, alert) for alert in alerts)
        self._publish(client, f"{camera}/alert", ON if is_alerted else OFF)
        if newest is not None:
            self._publish(client, f"{camera}/problem", _PROBLEMS[newest.kind])

    def _announce_all(self, client: paho.Client) -> None:
        for camera in self._cameras:
            self._announce(client, camera)
        client.publish(self._topic("status"), ONLINE, QOS, retain=True)
        for camera in self._cameras:
            self._publish_states(client, camera)

    # Called by paho's thread

    def _on_connect(self, client: paho.Client, _: Any, __: Any, reason: ReasonCode, ___: Properties | None) -> None:
        if reason.is_failure:
            self._refusal = str(reason)
        else:
            if self._entry.discovery is not None:
                client.subscribe(f"{self._entry.discovery}/status", QOS)
            self._announce_all(client)
        self._answered.set()

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        if message.payload == ONLINE.encode():  # Home Assistant's birth
            self._announce_all(client)

    def _on_publish(self, _: paho.Client, __: Any, message_id: int, reason: ReasonCode, ___: Properties | None) -> None:
        if reason.is_failure:
            self._refused[message_id] = str(reason)
