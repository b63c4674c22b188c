"""A worker's sign of life: once a second, with all its metrics, to the supervisor; alone, it serves them itself."""

import math
import os
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import zmq

from pipeline import health
from pipeline.config import Address
from pipeline.metrics import WorkerMetrics, families
from pipeline.transport.sockets import connected
from pipeline.transport.wire import Heartbeat, encode

PERIOD_S = 1.0


class Heart:
    """Beats from entry to exit, and once more at the end, so that no count is lost.

    `served`: where a worker that runs alone has its own `/metrics`, `/healthz` and `/readyz`.
    `patience_s`: without `moved` for so long it stops beating, so that the supervisor starts the worker again: what
    hangs in a library can be ended by nobody else.
    """

    def __init__(
        self, endpoint: str, metrics: WorkerMetrics, served: Address | None = None, patience_s: float = math.inf
    ) -> None:
        self._patience_s = patience_s
        self._moved_s = time.monotonic()
        self._endpoint = endpoint
        self._metrics = metrics
        self._served = served
        self._started_ns = time.monotonic_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def __enter__(self) -> Self:
        if self._served is not None:
            health.serve(self._served, self._metrics.registry, self._metrics.not_ready, self._stop)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def moved(self) -> None:
        """The worker's own loop goes on."""
        self._moved_s = time.monotonic()

    def _run(self) -> None:
        socket = connected(zmq.PUSH, self._endpoint, high_water=4, linger_ms=500)
        while True:
            last = self._stop.wait(PERIOD_S)
            if not last and time.monotonic() - self._moved_s > self._patience_s:
                continue
            beat = Heartbeat(self._metrics.worker, os.getpid(), self._started_ns, families(self._metrics.registry))
            with suppress(zmq.Again):  # the supervisor is gone or busy; the next beat says it all again
                socket.send_multipart(encode(beat), flags=zmq.DONTWAIT)
            if last:
                break
        socket.close()
