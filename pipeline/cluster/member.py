"""This host among those that share the cameras: it keeps its session, and shares its events and tracks.

    granted      acquire the camera's key -> claim its log -> read its tracks -> Granted to the track worker
    handed over  Withdrawn -> the track worker stops, saves the tracks, `let_go` -> events are shared -> the key is free
    lost         another host ended this session while it could not renew it -> Withdrawn

While no server answers, this host goes on with the cameras that it holds, but shares nothing once its lease has run
out: events wait in its store.  They are shared when a server answers and no other host has taken the camera.
"""

import asyncio
import concurrent.futures
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from pipeline import __version__
from pipeline.cluster.connection import Connection, all_of, within
from pipeline.cluster.jetstream import JetStream, Received
from pipeline.cluster.leases import RENEW_PERIOD_S, Acquire, Action, Expire, HandOver, Join, Leases
from pipeline.cluster.metrics import ClusterMetrics
from pipeline.cluster.publishing import Claim, Publisher, claim
from pipeline.cluster.tracks import TrackWriter
from pipeline.config.models import Config
from pipeline.errors import ClusterError
from pipeline.types import Event

MAX_ROUNDS = 4  # of actions for one view: expire, acquire
LET_GO_TIMEOUT_S = 2.0  # for the track worker to stop, and again for its last events to be shared
SHARE_TIMEOUT_S = 10.0
RECEIVE_WAIT_S = 1.0
SAVE_PERIOD_S = 0.1

Receive = Callable[[Sequence[Event], Callable[[], None]], None]


class Granted(NamedTuple):
    """This host owns a camera from now on."""

    camera: str
    token: int
    tracks: bytes  # as the last owner left them; empty: none
    saved_s: float  # when that was, on this host's monotonic clock


class Withdrawn(NamedTuple):
    """This host owns a camera no longer."""

    camera: str
    handed_over: bool  # `let_go` must follow; else another host has it already


class Member:
    """Its methods are called by the track worker and the sinks, and do not block but for `share` and `close`.

    Args:
        config: of this host, one of several.
        metrics: of this host.
    """

    def __init__(self, config: Config, metrics: ClusterMetrics) -> None:
        assert config.nats is not None and config.inference_host is not None
        self.host = config.inference_host
        self._places, self._version = config.nats.places, __version__
        capacities = {name: entry.capacity for name, entry in config.hosts.items()}
        self._leases = Leases(self.host, self._version, secrets.token_hex(8), _pinned(config), capacities)
        self._claims: dict[str, Claim] = {}
        self._publisher = Publisher(self.host, self._claims, metrics)
        self._tracks = TrackWriter(self._claims, self._leases)
        self._metrics = metrics
        metrics.watch(self._leases.cameras)
        self._changes: deque[Granted | Withdrawn] = deque()
        self._leaving: dict[str, asyncio.Event] = {}  # set once the track worker has let it go
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger().bind(host=self.host)
        self._connection = Connection(config.nats, self.host, config.retention.days, metrics.connected)

    # Called by the track worker and the sinks.

    def start(self, receive: Receive) -> None:
        """Join the other hosts; `receive` is called with their events, and what to call once they are stored."""
        self._receive = receive
        self._connection.start((self._renew, self._work, self._save, self._take), self._leave)

    def changes(self) -> list[Granted | Withdrawn]:
        """Return what has changed since the last call, in order."""
        return [self._changes.popleft() for _ in range(len(self._changes))]

    def let_go(self, camera: str) -> None:
        """Tell that the track worker raises no further events of a camera that was withdrawn."""
        self._connection.loop.call_soon_threadsafe(self._let_go, camera)

    def raised(self, camera: str, count: int) -> None:
        """Tell of events of a camera that are to be shared."""
        claimed = self._claims.get(camera)
        if claimed is not None:
            claimed.unshared += count

    def save(self, camera: str, tracks: bytes) -> None:
        """Keep the newest tracks of a camera for its next owner."""
        self._tracks.keep(camera, tracks)

    def share(self, events: Sequence[Event]) -> None:
        """Append events of this host to the log.  Raise ClusterError where that must be tried again."""
        sharing = self._connection.call(self._share(events))
        try:
            sharing.result(SHARE_TIMEOUT_S)
        except concurrent.futures.TimeoutError:
            sharing.cancel()  # else it would write beside the next try
            raise ClusterError(f"{self._places}: no answer within {SHARE_TIMEOUT_S:g} s") from None

    def watch(self, config: Config) -> None:
        """Take the cameras of a configuration that was reloaded."""
        self._connection.loop.call_soon_threadsafe(self._watch, _pinned(config))

    def close(self, timeout_s: float) -> None:
        """Free all cameras and end the session."""
        self._connection.close(timeout_s)

    # In the thread of the connection.

    def _let_go(self, camera: str) -> None:
        if camera in self._leaving:
            self._leaving[camera].set()

    def _watch(self, cameras: dict[str, str | None]) -> None:
        self._leases.cameras = cameras
        self._metrics.watch(cameras)

    async def _share(self, events: Sequence[Event]) -> None:
        stream = self._connection.stream
        if stream is None:
            raise ClusterError(f"{self._places}: not connected")
        if not self._leases.is_valid(time.monotonic()):
            raise ClusterError("this host's session is not renewed")
        await self._publisher.share(stream, events, self._leases.awaited())

    async def _renew(self, stream: JetStream) -> float:
        session, revision, sent_s = self._leases.session, self._leases.revision, time.monotonic()
        if revision is not None:
            new = None
            try:
                new = await stream.write_host(self.host, session, self._version, revision)
            finally:
                if new is None:  # what was written instead is read next
                    self._metrics.renewals_failed.inc()
            if new is not None:
                self._leases.renewed(session, new, sent_s)
        return RENEW_PERIOD_S

    async def _work(self, stream: JetStream) -> float:
        """Read all keys, and do what follows from them."""
        asked_s = time.monotonic()
        view = await stream.view()
        if self._leases.viewed(view, asked_s, time.monotonic()):
            self._log.warning("session lost: its cameras are processed by other hosts")
            self._leases.restart(secrets.token_hex(8))
        self._drop_lost()
        for _ in range(MAX_ROUNDS):
            actions = self._leases.actions(time.monotonic())
            if not actions:
                break
            await all_of(self._act(stream, action) for action in actions)
        self._tell_of_other_versions()
        new = self._leases.held().items() - {(camera, claimed.token) for camera, claimed in self._claims.items()}
        await all_of(self._grant(stream, *each) for each in new if each[0] not in self._leaving)
        self._metrics.own(self._leases.held() if self._leases.is_valid(time.monotonic()) else {})
        return RENEW_PERIOD_S

    def _tell_of_other_versions(self) -> None:
        other = self._leases.other_version() if self._leases.revision is None else None
        if other is not None:
            host, version = other
            reason = f"host {self.host!r} runs dasnet {self._version}: must be {version}, as host {host!r} runs"
            self._connection.tell("not joining: all hosts must run the same version", reason, is_error=True)

    def _drop_lost(self) -> None:
        held = self._leases.held()
        for camera, claimed in list(self._claims.items()):
            if held.get(camera) != claimed.token and camera not in self._leaving:
                del self._claims[camera]
                self._tracks.forget(camera)
                self._changes.append(Withdrawn(camera, handed_over=False))
                self._log.warning("camera lost to another host", camera=camera)

    async def _act(self, stream: JetStream, action: Action) -> None:
        match action:
            case Join(session, revision):
                sent_s = time.monotonic()
                new = await stream.write_host(self.host, session, self._version, revision)
                if new is not None:
                    self._leases.renewed(session, new, sent_s)
                    self._log.info("joined")
            case Expire(host, revision):
                new = await stream.write_host(host, "", self._version, revision)
                if new is not None:
                    self._leases.expired(host, new)
                    self._log.warning("host expired: it did not renew its session", expired=host)
            case Acquire(session, camera, revision, cause):
                new = await stream.write_camera(camera, self.host, session, revision)
                if new is not None:
                    self._leases.acquired(session, camera, new)
                    self._metrics.acquired.labels(camera, cause).inc()
            case HandOver(camera, revision):
                if camera not in self._leaving:
                    self._leaving[camera] = asyncio.Event()
                    task = asyncio.ensure_future(self._hand_over(stream, camera, revision))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _grant(self, stream: JetStream, camera: str, token: int) -> None:
        sequence = await claim(stream, camera, self.host, token)
        if sequence is None:
            return
        left = await stream.tracks(camera)
        self._claims[camera] = Claim(token, sequence, left.revision)
        self._changes.append(Granted(camera, token, left.data, time.monotonic() - left.age_s))
        self._log.info("camera acquired", camera=camera, token=token)

    async def _hand_over(self, stream: JetStream, camera: str, revision: int) -> None:
        try:
            claimed = self._claims.get(camera)
            if claimed is not None:
                self._changes.append(Withdrawn(camera, handed_over=True))
                await within(LET_GO_TIMEOUT_S, self._leaving[camera].wait())
                await within(LET_GO_TIMEOUT_S, claimed.all_shared())
                await self._tracks.write_last(stream, camera)
            self._leases.leave(camera)
            self._claims.pop(camera, None)
            await self._free(stream, camera, revision)
            self._log.info("camera handed over", camera=camera)
        except ClusterError as error:
            self._log.warning("camera not freed yet", camera=camera, reason=str(error))
        finally:
            del self._leaving[camera]

    async def _free(self, stream: JetStream, camera: str, revision: int) -> None:
        new = await stream.write_camera(camera, self.host, "", revision)
        if new is not None:
            self._leases.freed(camera, new)

    async def _save(self, stream: JetStream) -> float:
        await self._tracks.write_all(stream)
        return SAVE_PERIOD_S

    async def _take(self, stream: JetStream) -> float:
        """Give the events of other hosts to the store, and acknowledge them once they are there."""
        received = await stream.receive(self.host, RECEIVE_WAIT_S)
        await all_of(self._store(each) for each in received)
        for each in received:
            await each.acknowledge()
        return 0.0

    async def _store(self, received: Received) -> None:
        if received.host == self.host or not received.events:
            return
        stored, loop = asyncio.Event(), self._connection.loop

        def kept() -> None:
            loop.call_soon_threadsafe(stored.set)

        self._receive(received.events, kept)
        await stored.wait()
        self._metrics.received.labels(received.host).inc(len(received.events))

    async def _leave(self, stream: JetStream) -> float:
        """Free every camera and end the session, so that others need not wait for it to expire."""
        held = self._leases.held()
        try:
            await all_of(self._tracks.write_last(stream, camera) for camera in held)
            for camera in held:
                self._leases.leave(camera)
            await all_of(self._free(stream, camera, token) for camera, token in held.items())
            if self._leases.revision is not None:
                await stream.write_host(self.host, "", self._version, self._leases.revision)
            self._log.info("left")
        except ClusterError as error:
            self._log.warning("left without a word", reason=str(error))
        return 0.0


def _pinned(config: Config) -> dict[str, str | None]:
    """Return the cameras of a host's configuration, each with the only host that may process it, or None."""
    return {camera.id: config.pins.get(camera.id) for camera in config.cameras}
