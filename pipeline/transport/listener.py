"""A listening TCP socket that silent or slow strangers cannot exhaust.

A connection waits while no request of it is under way.  It is closed after WAIT_S, whatever trickles in; and when more
than MAX_WAITING wait, the oldest of the address that holds most of them is.  So a newcomer gets in at once, however
many silent connections there are.  Requests under way are limited too, in total and by address; a peer that takes no
data for STALLED_S is cut off by the kernel.

A socket is closed here by `shutdown` alone: whoever serves it sees its end, and closes it.
"""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

WAIT_S = 10.0  # for a whole request, the TLS handshake included
MAX_WAITING = 64
MAX_REQUESTS, MAX_REQUESTS_OF_ONE = 256, 128  # a browser keeps up to six under way
STALLED_S = 30.0
BACKLOG = 100

Peer = tuple[str, int]


@dataclass(eq=False)
class _Connection:
    host: str
    socket: socket.socket
    since_s: float  # it was accepted, or its last request answered
    requests: int = 0

    def cut(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Listener(socket.socket):
    """Belongs to one thread, which accepts, and calls `close_overdue` about once a second."""

    def __init__(self, family: socket.AddressFamily, wait_s: float = WAIT_S) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._wait_s = wait_s
        self._open: dict[Peer, _Connection] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        self._forget_closed()
        self._open[address[:2]] = _Connection(address[0], accepted, time.monotonic())
        waiting = self._waiting()
        if len(waiting) > MAX_WAITING:
            held = Counter(connection.host for connection in waiting)
            self._cut(min(waiting, key=lambda connection: (-held[connection.host], connection.since_s)))
        return accepted, address

    def close_overdue(self) -> None:
        self._forget_closed()
        limit_s = time.monotonic() - self._wait_s
        for connection in self._waiting():
            if connection.since_s < limit_s:
                self._cut(connection)

    @contextmanager
    def request(self, peer: Peer, *, is_shared: bool = False) -> Iterator[bool]:
        """While a request of this peer is under way; yield whether it may be served.

        `is_shared`: many clients have this address, as behind a proxy, so that its own limit does not hold.
        """
        connection = self._open.get(peer)
        if connection is None:  # cut off meanwhile
            yield True
            return
        under_way = [other.host for other in self._open.values() if other.requests]
        of_one = 0 if is_shared else under_way.count(connection.host)
        connection.requests += 1
        try:
            yield len(under_way) < MAX_REQUESTS and of_one < MAX_REQUESTS_OF_ONE
        finally:
            connection.requests -= 1
            connection.since_s = time.monotonic()

    def _waiting(self) -> list[_Connection]:
        return [connection for connection in self._open.values() if not connection.requests]

    def _cut(self, connection: _Connection) -> None:
        connection.cut()
        self._open = {peer: other for peer, other in self._open.items() if other is not connection}

    def _forget_closed(self) -> None:
        self._open = {peer: other for peer, other in self._open.items() if other.socket.fileno() >= 0}


def listen(host: str, port: int, wait_s: float = WAIT_S) -> Listener:
    """Return a socket that listens; port 0: any free one.  Raise OSError."""
    listener = Listener(socket.AF_INET6 if ":" in host else socket.AF_INET, wait_s)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(STALLED_S * 1e3))
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def url(scheme: str, host: str, port: int, path: str = "/") -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"
