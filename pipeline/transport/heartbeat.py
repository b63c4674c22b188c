"""A worker's sign of life: once a second, with all its metrics, to the supervisor."""

import os
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import zmq
from prometheus_client import CollectorRegistry

from pipeline.metrics import families
from pipeline.transport.sockets import connected
from pipeline.transport.wire import Heartbeat, encode

PERIOD_S = 1.0


class Heart:
    """Beats from entry to exit, and once more at the end, so that no count is lost."""

    def __init__(self, endpoint: str, worker: str, registry: CollectorRegistry) -> None:
        self._endpoint = endpoint
        self._worker = worker
        self._registry = registry
        self._started_ns = time.monotonic_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        socket = connected(zmq.PUSH, self._endpoint, high_water=4, linger_ms=500)
        while True:
            last = self._stop.wait(PERIOD_S)
            beat = Heartbeat(self._worker, os.getpid(), self._started_ns, families(self._registry))
            with suppress(zmq.Again):  # the supervisor is gone or busy; the next beat says it all again
                socket.send_multipart(encode(beat), flags=zmq.DONTWAIT)
            if last:
                break
        socket.close()
