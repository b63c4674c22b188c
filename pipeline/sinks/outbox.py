"""The outbox: from the store to every sink, at least once, in order.

In: the store, which another thread or process writes, and the sinks.  Out: each event to each sink; the cursors, which
say how far each one is.  Every sink has its own thread, so that one which fails or is slow holds up no other.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from pipeline.redaction import redact
from pipeline.sinks.schema import open_writable, transaction
from pipeline.sinks.sink import Sink
from pipeline.sinks.store import StoreReader

BATCH = 200  # events
POLL_S = 1.0  # without a wake, as when another process writes the store
BACKOFF_S: Final = (0.5, 60.0)  # first, longest

log = structlog.get_logger()

_SET_CURSOR = "INSERT INTO cursors (sink, row) VALUES (?, ?) ON CONFLICT (sink) DO UPDATE SET row = excluded.row"


class Outbox:
    """Starts delivering at once.  The store must be there."""

    def __init__(self, store_path: Path, sinks: Sequence[Sink], backoff_s: tuple[float, float] = BACKOFF_S) -> None:
        names = [sink.name for sink in sinks]
        if len(set(names)) < len(names):
            raise ValueError(f"sinks {names}: every one needs its own name")
        self._reader = StoreReader(store_path)
        self._deliveries = [_Delivery(store_path, sink, backoff_s) for sink in sinks]
        for delivery in self._deliveries:
            delivery.start()

    def wake(self) -> None:
        """There is something new in the store.  Cheap; call it after each commit."""
        for delivery in self._deliveries:
            delivery.wake.set()

    def backlog(self) -> dict[str, int]:
        """Events not yet acknowledged, by sink."""
        return {delivery.sink.name: self._reader.backlog(delivery.sink.name) for delivery in self._deliveries}

    def failures(self) -> dict[str, str]:
        """Why, by sink, for those that fail now."""
        errors = {delivery.sink.name: delivery.error for delivery in self._deliveries}
        return {name: error for name, error in errors.items() if error is not None}

    def stop(self, deadline_s: float = 5.0) -> dict[str, int]:
        """Deliver what is there, but no longer than the deadline.  Returns the backlog that stays for the next start.

        A sink that fails now is not waited for.
        """
        end = time.monotonic() + deadline_s
        for delivery in self._deliveries:
            delivery.stop_at(end)
        for delivery in self._deliveries:
            delivery.join(max(0.0, end - time.monotonic()))
        backlog = self.backlog()
        self._reader.close()
        return backlog


class _Delivery(threading.Thread):
    """One sink's thread.  A daemon: one that hangs in its sink does not keep the process from ending."""

    def __init__(self, store_path: Path, sink: Sink, backoff_s: tuple[float, float]) -> None:
        super().__init__(name=f"outbox {sink.name}", daemon=True)
        self.sink = sink
        self.wake = threading.Event()
        self.error: str | None = None
        self._store_path = store_path
        self._backoff_s = backoff_s
        self._stop_asked = threading.Event()
        self._end_s = float("inf")
        self._open: _Open | None = None

    def stop_at(self, end_s: float) -> None:
        """On the monotonic clock."""
        self._end_s = end_s
        self._stop_asked.set()
        self.wake.set()

    def run(self) -> None:
        wait_s = self._backoff_s[0]
        while True:
            stopping = self._stop_asked.is_set()  # read first: what was stored before the stop is then delivered below
            self.wake.clear()
            try:
                self._deliver()
            except Exception as error:  # noqa: BLE001  (the thread's top level: the next try may go well)
                self._fail(error, wait_s)
                if stopping:
                    break
                self._stop_asked.wait(wait_s * random.uniform(0.75, 1.25))
                wait_s = min(2 * wait_s, self._backoff_s[1])
            else:
                wait_s, self.error = self._backoff_s[0], None
                if stopping:
                    break
                self.wake.wait(POLL_S)
        self._close()

    def _deliver(self) -> None:
        """Until nothing is left, or time is up."""
        if self._open is None:
            self._open = self._start()
        while time.monotonic() < self._end_s:
            batch = self._open.reader.events(BATCH, after=self._open.row)
            if not batch:
                return
            self.sink.send([stored.event for stored in batch])
            self._open.acknowledge(self.sink.name, batch[-1].row)

    def _start(self) -> "_Open":
        """After the cursor, or after what the sink itself is known to hold: a crash may have come between the two."""
        with ExitStack() as opened:
            reader = opened.enter_context(StoreReader(self._store_path))
            writer = opened.enter_context(closing(open_writable(self._store_path)))
            held = self.sink.open()
            row = reader.row_of(held) if held is not None else None
            row = max(reader.cursor(self.sink.name), row or 0)
            return _Open(self._store_path, reader, writer, row, opened.pop_all())

    def _fail(self, error: Exception, wait_s: float) -> None:
        self.error = redact(f"{type(error).__name__}: {error}")
        log.warning("sink failed", sink=self.sink.name, error=self.error, retry_s=round(wait_s, 1))
        self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open.connections.close()
            self._open = None
        try:
            self.sink.close()
        except Exception as error:  # noqa: BLE001  (as above)
            log.warning("sink does not close", sink=self.sink.name, error=str(error))


@dataclass
class _Open:
    """A sink that is open, and how far it is."""

    store_path: Path
    reader: StoreReader
    writer: sqlite3.Connection  # of the cursors alone
    row: int  # the last one acknowledged
    connections: ExitStack

    def acknowledge(self, sink: str, row: int) -> None:
        with transaction(self.writer, self.store_path):
            self.writer.execute(_SET_CURSOR, (sink, row))
        self.row = row
