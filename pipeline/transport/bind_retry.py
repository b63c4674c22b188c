"""Retries of a service whose address is not free, or does not exist yet, until it can listen.

Such an address must not end the console, the metrics or the link: detection goes on without them.
"""

import threading

import structlog
from prometheus_client import Gauge

from pipeline.transport.listener import Listener, listen

PAUSES_S = (0.2, 0.5, 1.0, 2.0)  # the last one without end


class BindRetry:
    """Log the first failure as a warning, repeats at debug level; `listening` is 1 once the address is bound."""

    def __init__(self, service: str, address: str, listening: Gauge | None = None) -> None:
        self._listening = listening
        self._log = structlog.get_logger().bind(service=service, address=address)
        self._reason: str | None = None
        self._failures = 0
        self._show(0)

    def failed(self, reason: str) -> float:
        """Log a failure; return the pause before the next attempt, in s."""
        log = self._log.debug if reason == self._reason else self._log.warning
        pause_s = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        log("cannot listen, trying again until it works", reason=reason)
        self._reason = reason
        self._failures += 1
        return pause_s

    def succeeded(self) -> None:
        """Show that the service listens; log it after failures."""
        if self._failures:
            self._log.warning("listening now")
        self._show(1)

    def _show(self, value: int) -> None:
        if self._listening is not None:
            self._listening.set(value)


def listen_when_free(
    service: str, host: str, port: int, stop: threading.Event, listening: Gauge | None = None
) -> Listener | None:
    """Retry until the address can be bound; return the listener, or None where `stop` was set first."""
    retry = BindRetry(service, f"{host}:{port}", listening)
    pause_s = 0.0
    while not stop.wait(pause_s):
        try:
            listener = listen(host, port)
        except OSError as error:
            pause_s = retry.failed(error.strerror or str(error))
        else:
            retry.succeeded()
            return listener
    return None
