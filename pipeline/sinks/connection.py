"""Connections of sinks to one host and port: a TCP stream, plain or with TLS, or UDP datagrams.

In: bytes to send.  Out: those that came back.  Every call ends within a time limit, and every failure is a SinkError
that names host and port.
"""

import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from abc import ABC, abstractmethod

from pipeline.config.sink import ClientTls
from pipeline.config.tactical import TacticalSinkConfig
from pipeline.sinks.sink import SinkError

CONNECT_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 10.0
REFUSAL_S = 0.3  # in which a server closes a connection that it refuses, as for the client's certificate
MAX_RECEIVED_BYTES = 1 << 20  # per call
_CHUNK_BYTES = 65536
_FLUSH_POLL_S = 0.002


class Connection(ABC):
    """A connection; `place` names it in errors."""

    def __init__(self, place: str) -> None:
        self.place = place

    @abstractmethod
    def send(self, content: bytes) -> None:
        """Send all of it.  Raise SinkError."""

    @abstractmethod
    def flush(self) -> None:
        """Wait until the other host has everything, as far as the protocol says so.  Raise SinkError."""

    @abstractmethod
    def receive(self, wait_s: float = 0.0) -> bytes:
        """Return what has come, waiting for its beginning.  Raise SinkError where the connection is closed."""

    @abstractmethod
    def close(self) -> None:
        """Close it.  May be called more than once."""


class Stream(Connection):
    """A TCP stream.  Raise SinkError where it cannot be opened.

    Args:
        entry: names the host.
        context: for TLS, or None.
    """

    def __init__(self, entry: TacticalSinkConfig, context: ssl.SSLContext | None = None) -> None:
        super().__init__(entry.host or "")
        try:
            plain = socket.create_connection((entry.server, entry.port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise SinkError(f"{self.place}: cannot connect ({error})") from None
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = plain if context is None else context.wrap_socket(plain, server_hostname=entry.server)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            plain.close()
            raise SinkError(f"{self.place}: no TLS connection ({error})") from None

    def send(self, content: bytes) -> None:
        """Send all of it.  Raise SinkError."""
        self._socket.settimeout(SEND_TIMEOUT_S)
        try:
            self._socket.sendall(content)
        except OSError as error:
            raise SinkError(f"{self.place}: cannot send ({error})") from None

    def flush(self) -> None:
        """Wait until the other host has acknowledged every segment.  Raise SinkError."""
        end_s = time.monotonic() + SEND_TIMEOUT_S
        while self._unacknowledged():
            if time.monotonic() > end_s:
                raise SinkError(f"{self.place}: not acknowledged within {SEND_TIMEOUT_S:g} s")
            time.sleep(_FLUSH_POLL_S)

    def _unacknowledged(self) -> int:
        try:
            (size,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0"))
        except OSError as error:
            raise SinkError(f"{self.place}: connection lost ({error})") from None
        return int(size)

    def receive(self, wait_s: float = 0.0) -> bytes:
        """Return what has come, waiting for its beginning.  Raise SinkError where the connection is closed."""
        received = b""
        self._socket.settimeout(0)
        try:
            while len(received) < MAX_RECEIVED_BYTES and self._is_readable(0.0 if received else wait_s):
                chunk = self._socket.recv(_CHUNK_BYTES)
                if not chunk and not received:
                    raise SinkError(f"{self.place}: connection closed by the server")
                if not chunk:
                    break
                received += chunk
        except (BlockingIOError, ssl.SSLWantReadError):  # a part of a TLS record, or none of the application's
            pass
        except OSError as error:
            raise SinkError(f"{self.place}: connection lost ({error})") from None
        return received

    def _is_readable(self, wait_s: float) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(select.select([self._socket], [], [], wait_s)[0])

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class Datagrams(Connection):
    """UDP to a host or a multicast group.  Raise SinkError where there is no route."""

    def __init__(self, entry: TacticalSinkConfig) -> None:
        super().__init__(entry.host or "")
        try:
            found = socket.getaddrinfo(entry.server, entry.port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            self._socket = socket.socket(family, kind, protocol)
        except OSError as error:
            raise SinkError(f"{self.place}: cannot be resolved ({error})") from None
        try:
            self._socket.connect(address)
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise SinkError(f"{self.place}: cannot be reached ({error})") from None

    def send(self, content: bytes) -> None:
        """Send one datagram.  Raise SinkError, as where an earlier one met a closed port."""
        try:
            self._socket.send(content)
        except OSError as error:
            raise SinkError(f"{self.place}: cannot send ({error})") from None

    def flush(self) -> None:
        """Do nothing: nobody acknowledges datagrams."""

    def receive(self, wait_s: float = 0.0) -> bytes:
        """Return nothing; raise SinkError where the host answered that no program listens."""
        try:
            if select.select([self._socket], [], [], wait_s)[0]:
                self._socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            pass
        except OSError as error:
            raise SinkError(f"{self.place}: nothing listens ({error})") from None
        return b""

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def connected(entry: TacticalSinkConfig) -> Connection:
    """Return a connection as an entry's address and certificates say.  Raise SinkError."""
    if entry.scheme == "udp":
        return Datagrams(entry)
    if entry.scheme == "tcp":
        return Stream(entry)
    stream = Stream(entry, client_context(entry.certificates, str(entry.host)))
    try:
        stream.receive(REFUSAL_S)
    except SinkError:
        stream.close()
        raise
    return stream


def client_context(tls: ClientTls, name: str) -> ssl.SSLContext:
    """Return the context of an encrypted connection.  Raise SinkError, which names the sink or its host."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise SinkError(f"{name}: files of tls cannot be used ({error})") from error
    return context
