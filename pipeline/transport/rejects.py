"""Messages that a worker rejects: every one is counted, the first of each source is logged.

A flood of them fills neither the disk nor the memory.
"""

import structlog
from prometheus_client import Counter

from pipeline.errors import WireError

MAX_SOURCES = 100  # that are logged; later ones are only counted


class RejectLog:
    """The rejected messages of one socket."""

    def __init__(self, socket: str, counter: Counter) -> None:
        """Use the worker's counter, its labels set."""
        self._socket = socket
        self._counter = counter
        self._logged: set[str] = set()
        self._log = structlog.get_logger()

    def reject(self, error: WireError, source: str = "") -> None:
        """Count a message; `source` names its sender, where the socket knows it."""
        self._counter.inc()
        if source not in self._logged and len(self._logged) < MAX_SOURCES:
            self._logged.add(source)
            details = {"source": source} if source else {}
            self._log.warning("message rejected", socket=self._socket, reason=str(error)[:300], **details)
