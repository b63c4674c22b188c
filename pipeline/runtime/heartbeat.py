"""A worker's heartbeat: once a second, with all its metrics, to the supervisor.

A worker that was started alone serves its metrics itself.  The supervisor accepts heartbeats only of the processes that
it started: an orphan of another run has another run id.
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

from pipeline.config.console import Address
from pipeline.errors import WireError
from pipeline.telemetry import health
from pipeline.telemetry.metrics import WorkerMetrics, families
from pipeline.timeouts import HEARTBEAT_PERIOD_S
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import bound, connected
from pipeline.transport.wire import Heartbeat, decode, encode


class HeartbeatSender:
    """Send heartbeats from entry to exit, and a last one at the end, so that no count is lost."""

    def __init__(
        self,
        endpoint: str,
        metrics: WorkerMetrics,
        served: Address | None = None,
        watchdog_timeout_s: float = math.inf,
        run: str = "",
    ) -> None:
        """Create a sender, which starts on entry.

        Args:
            endpoint: of the supervisor.
            metrics: of this worker.
            served: where a worker that runs alone serves its own `/metrics`, `/healthz` and `/readyz`.
            watchdog_timeout_s: without `progress` for this long, heartbeats stop; the supervisor restarts the worker.
            run: id of the supervisor's run; it accepts heartbeats of its own workers only.
        """
        self._run_id = run
        self._watchdog_timeout_s = watchdog_timeout_s
        self._progress_s = time.monotonic()
        self._endpoint = endpoint
        self._metrics = metrics
        self._served = served
        self._started_ns = time.monotonic_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        if self._served is not None:
            health.serve(self._served, self._metrics.registry, self._metrics.not_ready, self._stop)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def progress(self) -> None:
        """Reset the watchdog: the worker's own loop is alive."""
        self._progress_s = time.monotonic()

    def _run(self) -> None:
        socket = connected(zmq.PUSH, self._endpoint, high_water=4, linger_ms=500)
        while True:
            is_last = self._stop.wait(HEARTBEAT_PERIOD_S)
            if not is_last and time.monotonic() - self._progress_s > self._watchdog_timeout_s:
                continue
            samples = families(self._metrics.registry)
            heartbeat = Heartbeat(self._metrics.worker, os.getpid(), self._started_ns, samples, self._run_id)
            with suppress(zmq.Again):  # the supervisor is gone or busy; the next heartbeat holds all samples again
                socket.send_multipart(encode(heartbeat), flags=zmq.DONTWAIT)
            if is_last:
                break
        socket.close()


class HeartbeatReceiver:
    """The supervisor's side: receive heartbeats in a thread."""

    def __init__(self, received: Callable[[Heartbeat], None], rejected: Counter) -> None:
        """Call `received` with each heartbeat; it raises WireError for those that it rejects."""
        self._received = received
        self._rejects = RejectLog("heartbeat", rejected)
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
                    raise WireError(f"{type(message).__name__}: expected a heartbeat")
                self._received(message)
            except WireError as error:
                self._rejects.reject(error)
        self._socket.close(0)
