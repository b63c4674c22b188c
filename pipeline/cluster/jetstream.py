"""What hosts share on NATS JetStream: keys by compare-and-set, the newest tracks of each camera, and the log of events.

    NAME-leases    key-value bucket: `hosts.HOST` and `cameras.CAMERA`, see `leases`
    NAME-tracks    key-value bucket: the tracks of each camera, for its next owner
    NAME-events    stream: `NAME.events.CAMERA`, the events of each camera in order, and the claims of its owners;
                   `NAME.events.-reviews`, what operators did, on whichever host

A message of `NAME-events` is accepted only after the one that its writer knows to be the newest of its camera.  An
owner begins with a claim, which is a message without events: from then on the server refuses all earlier owners.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from pipeline.cluster.leases import CameraRecord, HostRecord, View
from pipeline.cluster.servers import (
    FAILURES,
    REQUEST_TIMEOUT_S,
    close,
    connected,
    create_streams,
    reason_of,
    stream_names,
)
from pipeline.config.hosts import NatsConfig, place_of
from pipeline.errors import ClusterError
from pipeline.types import Event

ACK_WAIT_S = 5  # messages that were on their way when a connection was lost are sent again after it
TOKEN, HOST = "Dasnet-Token", "Dasnet-Host"
REVIEWS = "-reviews"  # in place of a camera, whose id begins with a letter or digit
WRONG_SEQUENCE = 10071  # the server's error code

_LAST = api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE
_events_decoder = msgspec.json.Decoder(list[Event])


class _HostValue(msgspec.Struct):
    session: str
    version: str


class _CameraValue(msgspec.Struct):
    host: str
    session: str


class Newest(NamedTuple):
    """The newest message of a camera's events."""

    sequence: int  # 0: there is none
    token: int
    events: list[Event]


class Tracks(NamedTuple):
    """The tracks of a camera as its last owner left them."""

    data: bytes  # empty: none
    revision: int
    age_s: float  # by the server's clock, when the camera was acquired


class Received(NamedTuple):
    """A message of the log of events, to be acknowledged once its events are stored."""

    events: list[Event]
    host: str
    message: Any

    async def acknowledge(self) -> None:
        """Report that the events are stored.  Raise ClusterError."""
        try:
            await self.message.ack()
        except FAILURES as error:
            raise ClusterError(str(error)) from None


class JetStream:
    """A connection to the first server that answers.  A failed request raises ClusterError; then connect again."""

    def __init__(self, client: Client, config: NatsConfig, place: str) -> None:
        self._client = client
        self._js: JetStreamContext = client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._name = config.name
        self._leases, self._tracks, self._events = stream_names(config.name)
        self.place = place
        self._subscription: JetStreamContext.PullSubscription | None = None

    @classmethod
    async def connect(
        cls, config: NatsConfig, client_name: str, keep_days: float, only: str | None = None
    ) -> "JetStream":
        """Connect, and create what is missing.  Raise ClusterError, which names every server and what it answered.

        Args:
            config: the servers.
            client_name: names the connection on the server.
            keep_days: how long events are kept.
            only: the server to connect to; None: the first that answers.
        """
        faults = []
        for server in config.servers if only is None else [only]:
            try:
                client = await connected(server, config, client_name)
                await create_streams(client, config.name, keep_days, config.replicas)
            except ClusterError as error:
                faults.append(f"{place_of(server)}: {error}")
                continue
            return cls(client, config, place_of(server))
        raise ClusterError("; ".join(faults))

    async def close(self) -> None:
        """Close the connection."""
        await close(self._client)

    @property
    def is_connected(self) -> bool:
        """Whether the connection was up when it was last used."""
        return self._client.is_connected

    # Keys.

    async def view(self) -> View:
        """Read the keys of all hosts and cameras at once.  Raise ClusterError."""
        prefix = f"$KV.{self._leases}."
        hosts, cameras = {}, {}
        try:
            for subject, sequence, data in await self._newest(f"KV_{self._leases}", [f"{prefix}>"]):
                kind, _, name = subject.removeprefix(prefix).partition(".")
                if kind == "hosts":
                    host = msgspec.json.decode(data, type=_HostValue)
                    hosts[name] = HostRecord(sequence, host.session, host.version)
                else:
                    camera = msgspec.json.decode(data, type=_CameraValue)
                    cameras[name] = CameraRecord(sequence, camera.host, camera.session)
        except (msgspec.DecodeError, *FAILURES) as error:
            raise ClusterError(f"keys cannot be read ({reason_of(error)})") from None
        return View(hosts, cameras)

    async def _newest(self, stream: str, subjects: Sequence[str]) -> list[tuple[str, int, bytes]]:
        """Return subject, sequence and data of the newest message of each subject."""
        inbox = await self._client.subscribe(self._client.new_inbox())
        found: list[tuple[str, int, bytes]] = []
        try:
            request = json.dumps({"multi_last": list(subjects)}).encode()
            await self._client.publish(f"$JS.API.DIRECT.GET.{stream}", request, reply=inbox.subject)
            while True:
                message = await inbox.next_msg(REQUEST_TIMEOUT_S)
                headers = message.headers or {}
                status = headers.get("Status")
                if status in ("204", "404"):
                    return found
                if status is not None:
                    raise ClusterError(f"{stream}: {status} {headers.get('Description', '')}".strip())
                found.append((headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data))
        finally:
            await inbox.unsubscribe()

    async def write_host(self, host: str, session: str, version: str, revision: int) -> int | None:
        """Change the key of a host; return its new revision, None where it has another.  Raise ClusterError."""
        return await self._swap(self._leases, f"hosts.{host}", _HostValue(session, version), revision)

    async def write_camera(self, camera: str, host: str, session: str, revision: int) -> int | None:
        """Change the key of a camera, likewise; an empty session frees it."""
        return await self._swap(self._leases, f"cameras.{camera}", _CameraValue(host, session), revision)

    async def write_tracks(self, camera: str, data: bytes, revision: int) -> int | None:
        """Write the tracks of a camera, likewise."""
        return await self._swap(self._tracks, camera, data, revision)

    async def _swap(self, bucket: str, key: str, value: msgspec.Struct | bytes, revision: int) -> int | None:
        data = value if isinstance(value, bytes) else msgspec.json.encode(value)
        return await self._publish(f"$KV.{bucket}.{key}", data, {_LAST: str(revision)})

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> int | None:
        try:
            return (await self._js.publish(subject, data, headers=headers)).seq
        except nats.js.errors.APIError as error:
            if error.err_code == WRONG_SEQUENCE:
                return None
            raise ClusterError(f"{subject}: {reason_of(error)}") from None
        except FAILURES as error:
            raise ClusterError(f"{subject}: {reason_of(error)}") from None

    async def tracks(self, camera: str) -> Tracks:
        """Return the tracks that a camera's last owner left.  Raise ClusterError."""
        saved = await self._last(f"KV_{self._tracks}", f"$KV.{self._tracks}.{camera}")
        key = await self._last(f"KV_{self._leases}", f"$KV.{self._leases}.cameras.{camera}")
        if saved is None or key is None:
            return Tracks(b"", 0, 0.0)
        return Tracks(saved.data or b"", saved.seq or 0, (_time(key) - _time(saved)).total_seconds())

    # The log of events.

    async def newest(self, camera: str) -> Newest:
        """Return the newest message of a camera.  Raise ClusterError."""
        message = await self._last(self._events, self._subject(camera))
        if message is None:
            return Newest(0, 0, [])
        return Newest(message.seq or 0, int((message.headers or {}).get(TOKEN, 0)), _events(message.data or b""))

    async def write_events(self, camera: str, events: Sequence[Event], host: str, token: int, after: int) -> int | None:
        """Append events of one camera, or without any a claim.

        Return the sequence of the message, None where `after` is not that of the camera's newest.  Raise ClusterError.
        """
        headers = {_LAST: str(after), TOKEN: str(token), HOST: host}
        headers["Nats-Msg-Id"] = events[-1].id if events else f"claim-{camera}-{token}"
        return await self._publish(self._subject(camera), msgspec.json.encode(events), headers)

    async def write_review(self, review: Event, host: str) -> None:
        """Append an operator's review, which no camera's owner need write.  Raise ClusterError."""
        data = msgspec.json.encode([msgspec.structs.replace(review, host=host)])
        await self._publish(self._subject(REVIEWS), data, {HOST: host, "Nats-Msg-Id": review.id})

    async def receive(self, host: str, wait_s: float) -> list[Received]:
        """Return the next events that this host has not acknowledged.  Raise ClusterError."""
        try:
            if self._subscription is None:
                self._subscription = await self._js.pull_subscribe(
                    f"{self._name}.events.*",
                    durable=f"host-{host}",
                    stream=self._events,
                    config=api.ConsumerConfig(ack_wait=ACK_WAIT_S),
                )
            messages = await self._subscription.fetch(100, timeout=wait_s)
        except nats.errors.TimeoutError:
            return []
        except FAILURES as error:
            raise ClusterError(f"{self._events}: {reason_of(error)}") from None
        return [Received(_events(each.data), (each.headers or {}).get(HOST, ""), each) for each in messages]

    def _subject(self, camera: str) -> str:
        return f"{self._name}.events.{camera}"

    async def _last(self, stream: str, subject: str) -> api.RawStreamMsg | None:
        try:
            return await self._js.get_last_msg(stream, subject)
        except nats.js.errors.NotFoundError:
            return None
        except FAILURES as error:
            raise ClusterError(f"{subject}: {reason_of(error)}") from None


def _events(data: bytes) -> list[Event]:
    """Return the events of a message; none where another version wrote what this one cannot read."""
    try:
        return _events_decoder.decode(data)
    except msgspec.DecodeError:
        return []


def _time(message: api.RawStreamMsg) -> datetime:
    assert message.time is not None
    return message.time
