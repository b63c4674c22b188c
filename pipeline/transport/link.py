"""The link from edge hosts to the inference host: TCP with CURVE keys, each host for its own cameras.

`Uplink` says how a capture worker reaches the inference host; `HostAuthenticator` admits edge hosts there.
"""

import math
import socket as network
import time
from dataclasses import dataclass

import structlog
import zmq
from prometheus_client import Gauge
from zmq.auth import Authenticator
from zmq.auth.thread import ThreadAuthenticator

from pipeline.config.camera import Camera
from pipeline.config.hosts import Link
from pipeline.config.models import Config
from pipeline.errors import WireError
from pipeline.transport.bind_retry import BindRetry
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.host_keys import HostKeys
from pipeline.transport.keys import ClientKeys, ServerKeys, client_keys, server_keys
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import Socket, unconnected
from pipeline.transport.sockets import connected as connected_here

ZAP_ADDRESS = "inproc://zeromq.zap.01"  # fixed by RFC 27: a process has one authenticator
PING_INTERVAL_MS, PING_TIMEOUT_MS = 1000, 5000  # of ZeroMQ's own heartbeat between connected peers


@dataclass(frozen=True)
class Uplink:
    """Where a capture worker sends frames and camera states.

    Attributes:
        frames: address of the segmentation worker.
        results: address of the track worker.
        clips: address of the track worker for clips; empty: they are written in its run folder.
        remote: they are on another host, with another clock.
        keys: None: not encrypted.
        jpeg: compress pixels.
    """

    frames: str = Endpoints.segmentation
    results: str = Endpoints.results
    clips: str = ""
    remote: bool = False
    keys: ClientKeys | None = None
    jpeg: bool = False

    def connected(
        self, kind: int, endpoint: str, high_water: int, linger_ms: int = 0, *, patient: bool = False
    ) -> Socket:
        """Return a connected socket; arguments as for `sockets.connected`."""
        if not self.remote:
            return connected_here(kind, endpoint, high_water, linger_ms, patient=patient)
        socket = unconnected(kind, high_water, linger_ms)
        _detect_dead_peers(socket)
        socket.setsockopt(zmq.IMMEDIATE, int(not patient))
        if self.keys is not None:
            socket.curve_publickey, socket.curve_secretkey = self.keys.own.public, self.keys.own.secret
            socket.curve_serverkey = self.keys.server
        socket.connect(endpoint)
        return socket


def uplink(config: Config, camera: Camera) -> Uplink:
    """Return the uplink of a camera.  Raise ConfigError where keys are missing."""
    if camera.host is None or config.link is None:
        return Uplink()
    link = config.link
    keys = client_keys(link.keys, camera.host) if link.keys else None
    frames, results, clips = (_address(link, port) for port in (link.port, link.results_port, link.clips_port))
    return Uplink(frames, results, clips, True, keys, link.pixels == "jpeg")


class LinkListener:
    """A socket that listens as soon as its address is free: it may be taken, or not exist yet."""

    def __init__(self, socket: Socket, link: Link, port: int, listening: Gauge) -> None:
        self.socket = socket
        self._link, self._port = link, port
        address = _address(link, port)
        self._retry = BindRetry("link", address, listening.labels(f"link {address}"))
        self._next_s = 0.0  # inf: it listens
        self.bind()

    def bind(self) -> None:
        """Try to listen where a retry is due; called in the loop of the thread that owns the socket."""
        if time.monotonic() < self._next_s:
            return
        try:
            # ZeroMQ listens at addresses only; a name is that of this host, whose address may change.
            found = network.getaddrinfo(self._link.host, self._port, type=network.SOCK_STREAM)
            here = self._link.model_copy(update={"host": found[0][4][0]})
            self.socket.bind(_address(here, self._port))
        except OSError as error:
            self._next_s = time.monotonic() + self._retry.failed(error.strerror or str(error))
        except zmq.ZMQError as error:
            self._next_s = time.monotonic() + self._retry.failed(error.strerror.partition(" (addr")[0])
        else:
            self._next_s = math.inf
            self._retry.succeeded()


class _Releasing(Authenticator):
    """Frees its address when it stops.  Closing alone leaves that to a thread of ZeroMQ, for later."""

    def stop(self) -> None:
        """Free the address and close the socket."""
        if self.zap_socket:
            self.zap_socket.unbind(ZAP_ADDRESS)
        super().stop()


class _Authenticator(ThreadAuthenticator, _Releasing):
    """Runs in a thread of its own, which has ended before the address is freed."""


class HostAuthenticator:
    """Admit edge hosts to the inference host.  One per process: ZeroMQ uses one authenticator for all its sockets."""

    def __init__(self, config: Config, link: Link, rejects: RejectLog) -> None:
        self._link = link
        self._rejects = rejects
        self.watch(config)
        self._keys: ServerKeys | None = server_keys(link.keys) if link.keys else None
        self._hosts: HostKeys | None = HostKeys(link.keys) if link.keys else None
        self._authenticator: _Authenticator | None = None
        if self._keys is not None:
            self._authenticator = _Authenticator(zmq.Context.instance())
            self._authenticator.start()
            self._authenticator.configure_curve_callback("*", credentials_provider=self)
        else:
            structlog.get_logger().warning("link is not encrypted: every host that reaches it may send frames")

    def watch(self, config: Config) -> None:
        """Set the cameras of the site from now on."""
        self._host_of = {camera.id: camera.host for camera in config.cameras}

    def callback(self, _domain: str, key: bytes) -> bool:
        """Return whether the owner of this public key may connect; called by the authenticator."""
        if self._hosts is None:
            return False
        self._hosts.refresh()  # a key that was removed a moment ago is rejected
        known = self._hosts.host_of(key) is not None
        if not known:
            self._rejects.reject(WireError("connection with an unknown CURVE key"), "unknown key")
        return known

    def listener(self, kind: int, port: int, high_water: int, listening: Gauge) -> LinkListener:
        """Return a socket that listens at this port."""
        socket = unconnected(kind, high_water, 0)
        _detect_dead_peers(socket)
        if self._hosts is not None:
            self._hosts.guard(port)
        if self._keys is not None:
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = self._keys.own.public, self._keys.own.secret
        return LinkListener(socket, self._link, port, listening)

    def check(self, camera: str, part: zmq.Frame) -> None:
        """Check that a message comes from its camera's own host; `part` is one of its parts.  Raise WireError."""
        host = self._host_of.get(camera)
        if host is None:
            raise WireError(f"camera {camera[:64]!r} of another host: expected one that is configured there")
        sender = self._hosts.host_of(_user(part)) if self._hosts is not None else host
        if sender != host:
            raise WireError(f"camera {camera!r} from host {sender!r}: expected host {host!r}")

    def close(self) -> None:
        """Stop admitting hosts."""
        if self._authenticator is not None:
            self._authenticator.stop()
        if self._hosts is not None:
            self._hosts.close()


def _user(part: zmq.Frame) -> bytes:
    """Return the sender's public key, which the authenticator set as its user id."""
    return str(part.get("User-Id")).encode()


def _address(link: Link, port: int) -> str:
    assert link.host is not None, "of one host: see Config.for_host"
    host = f"[{link.host}]" if ":" in link.host else link.host
    return f"tcp://{host}:{port}"


def _detect_dead_peers(socket: Socket) -> None:
    """Detect a peer that is gone without closing the connection, as when a cable is pulled."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, PING_INTERVAL_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, PING_TIMEOUT_MS)
    socket.setsockopt(zmq.IPV6, 1)
