"""A listening TCP socket that idle or slow clients cannot exhaust.

A connection is idle while it has no request under way.  It is closed after IDLE_TIMEOUT_S, whatever trickles in; and
with more than MAX_IDLE idle ones, the oldest of the address that holds most of them is closed.  So a new client is
served at once, however many silent connections there are.  Requests under way are limited too, in total and per
address; a peer that accepts no data for SEND_TIMEOUT_S is disconnected by the kernel.

A socket is only shut down here: the server sees its end, and closes it.
"""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

IDLE_TIMEOUT_S = 10.0  # for a whole request, the TLS handshake included
MAX_IDLE = 64
MAX_REQUESTS, MAX_REQUESTS_PER_ADDRESS = 256, 128  # a browser keeps up to six under way
SEND_TIMEOUT_S = 30.0
BACKLOG = 100

Peer = tuple[str, int]


@dataclass(eq=False)
class _Connection:
    host: str
    socket: socket.socket
    idle_since_s: float  # accepted, or the last request was answered
    requests: int = 0

    def shut_down(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Listener(socket.socket):
    """Used by one thread, which accepts, and calls `close_overdue` about once a second."""

    def __init__(self, family: socket.AddressFamily, idle_timeout_s: float = IDLE_TIMEOUT_S) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._idle_timeout_s = idle_timeout_s
        self._open: dict[Peer, _Connection] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; close an idle one where there are too many."""
        accepted, address = super().accept()
        self._forget_closed()
        self._open[address[:2]] = _Connection(address[0], accepted, time.monotonic())
        idle = self._idle()
        if len(idle) > MAX_IDLE:
            held = Counter(connection.host for connection in idle)
            self._disconnect(min(idle, key=lambda connection: (-held[connection.host], connection.idle_since_s)))
        return accepted, address

    def close_overdue(self) -> None:
        """Close the connections that have been idle for too long."""
        self._forget_closed()
        limit_s = time.monotonic() - self._idle_timeout_s
        for connection in self._idle():
            if connection.idle_since_s < limit_s:
                self._disconnect(connection)

    @contextmanager
    def request(self, peer: Peer, *, is_shared: bool = False) -> Iterator[bool]:
        """Count a request of this peer while it is under way; yield whether it may be served.

        `is_shared`: many clients have this address, as behind a proxy, so that the limit per address does not apply.
        """
        connection = self._open.get(peer)
        if connection is None:  # disconnected meanwhile
            yield True
            return
        under_way = [other.host for other in self._open.values() if other.requests]
        of_address = 0 if is_shared else under_way.count(connection.host)
        connection.requests += 1
        try:
            yield len(under_way) < MAX_REQUESTS and of_address < MAX_REQUESTS_PER_ADDRESS
        finally:
            connection.requests -= 1
            connection.idle_since_s = time.monotonic()

    def _idle(self) -> list[_Connection]:
        return [connection for connection in self._open.values() if not connection.requests]

    def _disconnect(self, connection: _Connection) -> None:
        connection.shut_down()
        self._open = {peer: other for peer, other in self._open.items() if other is not connection}

    def _forget_closed(self) -> None:
        self._open = {peer: other for peer, other in self._open.items() if other.socket.fileno() >= 0}


def listen(host: str, port: int, idle_timeout_s: float = IDLE_TIMEOUT_S) -> Listener:
    """Return a listening socket; port 0: any free one.  Raise OSError."""
    listener = Listener(socket.AF_INET6 if ":" in host else socket.AF_INET, idle_timeout_s)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(SEND_TIMEOUT_S * 1e3))
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def url(scheme: str, host: str, port: int, path: str = "/") -> str:
    """Return the URL of a service; IPv6 addresses are bracketed."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"
