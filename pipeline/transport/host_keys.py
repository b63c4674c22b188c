"""Which hosts may connect: those whose public keys are in the keys folder, which may change at any time.

A key that is removed is rejected from then on, and connections that were made with it are closed.  ZeroMQ checks a key
only when a connection is made and cannot close a single one: all are closed, and hosts whose keys remain reconnect
within a moment.
"""

import os
import socket
import stat
import threading
from contextlib import suppress
from pathlib import Path

import structlog

from pipeline.transport.keys import HOSTS, readable_hosts

CHECK_S = 1.0

Stamp = tuple[tuple[str, int, int, int], ...]


class HostKeys:
    """The keys folder as the listening process knows it.  Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._stamp = _stamp(folder)
        self._hosts = readable_hosts(folder)
        self._ports: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="host keys", daemon=True)
        self._thread.start()

    def guard(self, port: int) -> None:
        """Close the connections to this port too when a key is removed."""
        self._ports.add(port)

    def host_of(self, key: bytes) -> str | None:
        """Return the name of the host that has this public key."""
        return self._hosts.get(key)

    def close(self) -> None:
        """End the thread that watches the folder."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(CHECK_S):
            self.refresh()

    def refresh(self) -> None:
        """Read the folder again now, if it has changed; the thread does so every CHECK_S."""
        with self._lock:
            stamp = _stamp(self._folder)
            if stamp == self._stamp:
                return
            before, self._hosts, self._stamp = self._hosts, readable_hosts(self._folder), stamp
            if gone := {name for key, name in before.items() if self._hosts.get(key) != name}:
                closed = _close_connections(self._ports)
                structlog.get_logger().warning("host keys revoked", hosts=sorted(gone), connections_closed=closed)


def _stamp(folder: Path) -> Stamp:
    """Return a value that differs whenever a key file was added, removed or written."""
    try:
        with os.scandir(folder / HOSTS) as entries:
            states = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".key")]
    except OSError:
        return ()
    return tuple(sorted((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states))


def _close_connections(ports: set[int]) -> int:
    """Shut down every connection that this process accepted at these ports; return how many."""
    closed = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it, or the connection, has just ended
            own = os.dup(int(descriptor.name))  # cannot become that of another file meanwhile
            if not stat.S_ISSOCK(os.fstat(own).st_mode):
                os.close(own)
                continue
            with socket.socket(fileno=own) as connection:
                if _is_accepted(connection, ports):
                    connection.shutdown(socket.SHUT_RDWR)
                    closed += 1
    return closed


def _is_accepted(connection: socket.socket, ports: set[int]) -> bool:
    """Return whether it is an accepted connection: ZeroMQ ends the process when the listening socket is shut down."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    listens = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return not listens and connection.getsockname()[1] in ports
