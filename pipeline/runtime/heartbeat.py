"""A worker's sign of life: once a second, with all its metrics, to the supervisor; alone, it serves them itself.

The supervisor takes those alone of the very processes that it started: another run's orphan has another run id.
"""

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import zmq
from prometheus_client import Counter

from pipeline.config.models import Address
from pipeline.errors import WireError
from pipeline.telemetry import health
from pipeline.telemetry.metrics import WorkerMetrics, families
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import bound, connected
from pipeline.transport.wire import Heartbeat, decode, encode

PERIOD_S = 1.0


class HeartbeatSender:
    """Beats from entry to exit, and once more at the end, so that no count is lost.

    `served`: where a worker that runs alone has its own `/metrics`, `/healthz` and `/readyz`.
    `watchdog_timeout_s`: after so long without `moved`, heartbeats stop and the supervisor restarts the worker.
    """

    def __init__(
        self,
        endpoint: str,
        metrics: WorkerMetrics,
        served: Address | None = None,
        watchdog_timeout_s: float = math.inf,
        run: str = "",
    ) -> None:
        """`run`: the supervisor's; it takes heartbeats of its own workers alone."""
        self._run_id = run
        self._patience_s = watchdog_timeout_s
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
            samples = families(self._metrics.registry)
            beat = Heartbeat(self._metrics.worker, os.getpid(), self._started_ns, samples, self._run_id)
            with suppress(zmq.Again):  # the supervisor is gone or busy; the next beat says it all again
                socket.send_multipart(encode(beat), flags=zmq.DONTWAIT)
            if last:
                break
        socket.close()


class HeartbeatReceiver:
    """The supervisor's side, in a thread of its own.  `heard` raises WireError for what it does not take."""

    def __init__(self, heard: Callable[[Heartbeat], None], refused: Counter) -> None:
        self._heard = heard
        self._refusals = RejectLog("heartbeat", refused)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def __enter__(self) -> None:
        self._socket = bound(zmq.PULL, Endpoints.heartbeat, high_water=64)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(200):
                continue
            try:
                message, _ = decode(self._socket.recv_multipart())
                if not isinstance(message, Heartbeat):
                    raise WireError(f"a {type(message).__name__} sent to the supervisor")
                self._heard(message)
            except WireError as error:
                self._refusals.refuse(error)
        self._socket.close(0)
