"""A thread that waits at sockets and can be ended while it waits."""

import os
import threading
from abc import ABC, abstractmethod

import zmq

from pipeline.transport.sockets import Socket


class SocketThread(ABC):
    """The thread, from entry to exit; at exit it has `drain_timeout_s` to end by itself.

    `_run` makes its own sockets, waits at `_poller` of them, and returns once `_closing` is set.
    """

    def __init__(self, name: str, drain_timeout_s: float) -> None:
        self._closing = False
        self._drain_timeout_s = drain_timeout_s
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(self._drain_timeout_s)
        if not self._thread.is_alive():
            os.close(self._wake)

    def _poller(self, socket: Socket) -> zmq.Poller:
        """Return what waits for messages at a socket, or for the thread's end."""
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        return poller

    @abstractmethod
    def _run(self) -> None:
        """Work until `_closing`, in the thread."""
