"""Messages that a worker will not take: every one is counted, the first of each source is logged.

A flood of them fills neither the disk nor the memory.
"""

import structlog
from prometheus_client import Counter

from pipeline.errors import WireError

MAX_SOURCES = 100  # that are logged; those after them are only counted


class RejectLog:
    """Of one socket.  `counter` is that of the worker, with its labels set."""

    def __init__(self, socket: str, counter: Counter) -> None:
        self._socket = socket
        self._counter = counter
        self._logged: set[str] = set()
        self._log = structlog.get_logger()

    def refuse(self, error: WireError, source: str = "") -> None:
        """`source`: who sent it, where the socket knows."""
        self._counter.inc()
        if source not in self._logged and len(self._logged) < MAX_SOURCES:
            self._logged.add(source)
            about = {"source": source} if source else {}
            self._log.warning("message refused", socket=self._socket, reason=str(error)[:300], **about)
