"""The delivery of stored events to one sink, in its own thread.

In: the store, and a sink.  Out: each event that the sink wants, in order, at least once; a cursor in the store.  A sink
that fails is retried with back-off.  Events that its destination refuses are sent one by one; one that is refused
MAX_REFUSALS times goes to the dead letters, so that it does not hold up the others for ever.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import structlog

from pipeline.errors import DamagedStoreError, StoreError
from pipeline.redaction import redact
from pipeline.sinks import dead_letters
from pipeline.sinks.dead_letters import DeadLetter
from pipeline.sinks.sink import RefusedError, Sink
from pipeline.store.reader import StoredEvent, StoreReader
from pipeline.store.schema import open_writable, transaction
from pipeline.telemetry.sinks import SinkMetrics

POLL_S = 1.0  # while the store cannot be read
MAX_REFUSALS = 8  # about a minute, with the back-off

log = structlog.get_logger()

_SET_CURSOR = "INSERT INTO cursors (sink, row) VALUES (?, ?) ON CONFLICT (sink) DO UPDATE SET row = excluded.row"


@dataclass
class StoreState:
    """State of the store, shared between its writer and the sinks' threads."""

    is_open: bool
    generation: int = 0  # how often it was opened
    damage: tuple[int, DamagedStoreError] | None = None  # damage that a sink's thread met, and in which generation


class Delivery(threading.Thread):
    """The thread of one sink; a daemon, so that a hanging sink does not keep the process from ending."""

    def __init__(
        self, store_path: Path, sink: Sink, backoff_s: tuple[float, float], state: StoreState, metrics: SinkMetrics
    ) -> None:
        super().__init__(name=f"outbox {sink.name}", daemon=True)
        self.sink = sink
        self.wake = threading.Event()
        self.error: str | None = None
        self.is_failing = False  # the sink, not the store
        self._store_path = store_path
        self._backoff_s = backoff_s
        self._wait_s = backoff_s[0]  # before the next try
        self._state = state
        self._metrics = metrics
        self._sent: StoredEvent | None = None  # the last one, possibly not acknowledged
        self._refused_to = 0  # row up to which events are sent one by one
        self._refusals = 0  # of the next event
        self._stopping = threading.Event()
        self._end_s = float("inf")
        self._generation = 0  # in which the sink was opened last
        self._open: _OpenSink | None = None

    def stop_at(self, end_s: float) -> None:
        """Stop delivering at this time of the monotonic clock."""
        self._end_s = end_s
        self._stopping.set()
        self.wake.set()

    def run(self) -> None:
        """Deliver until told to stop."""
        while True:
            stopping = self._stopping.is_set()  # first: what was stored before the stop is delivered below
            self.wake.clear()
            try:
                self._deliver()
            except StoreError as error:
                self._wait_for_store(error)
                if stopping:
                    break
                self.wake.wait(POLL_S)
            except Exception as error:  # noqa: BLE001  (the thread's top level: the next try may succeed)
                self._fail(error)
                if stopping:
                    break
                self._stopping.wait(self._wait_s * random.uniform(0.75, 1.25))
                self._wait_s = min(2 * self._wait_s, self._backoff_s[1], self.sink.longest_wait_s)
            else:
                self._wait_s, self.error, self.is_failing = self._backoff_s[0], None, False
                if stopping:
                    break
                self.wake.wait(self.sink.poll_s)
        self._close()

    def _deliver(self) -> None:
        """Deliver until nothing is left, or until the deadline."""
        if self._open is not None and not self._is_current(self._open):
            self._deliver_from(self._open)  # what can still be read
            self._close()
        if self._open is None and self._state.is_open:
            self._open = self._start()
        if self._open is not None:
            self._deliver_from(self._open)

    def _is_current(self, opened: "_OpenSink") -> bool:
        return self._state.is_open and opened.generation == self._state.generation

    def _deliver_from(self, opened: "_OpenSink") -> None:
        while time.monotonic() < self._end_s:
            count = 1 if opened.row < self._refused_to else self.sink.batch_size
            batch = opened.reader.events(count, after=opened.row)
            if not batch:
                self.sink.idle(opened.reader)
                return
            wanted = self._unexpired([stored for stored in batch if self.sink.wants(stored.event)])
            if wanted:
                opened.acknowledge(self.sink.name, wanted[0].row - 1)  # what is late begins with what is wanted
                self._send(wanted)
            opened.acknowledge(self.sink.name, batch[-1].row)

    def _unexpired(self, wanted: list[StoredEvent]) -> list[StoredEvent]:
        """Return the events that are not too old for the sink; count the others, which the cursor then passes."""
        since_utc_ns = time.time_ns() - self.sink.expires_s * 1e9
        fresh = [stored for stored in wanted if stored.event.time_utc_ns >= since_utc_ns]
        if len(fresh) < len(wanted):
            expired = len(wanted) - len(fresh)
            self._metrics.expired.labels(self.sink.label).inc(expired)
            log.warning("events expired before a sink was reached", sink=self.sink.name, events=expired)
        return fresh

    def _send(self, wanted: Sequence[StoredEvent]) -> None:
        """Send the events, or write the only one to the dead letters where it was refused too often."""
        try:
            self.sink.send([stored.event for stored in wanted])
        except RefusedError as error:
            if len(wanted) > 1:
                self._refused_to = wanted[-1].row
                raise
            self._refusals += 1
            if self._refusals < MAX_REFUSALS:
                raise
            self._bury(wanted[0], error)
        else:
            self._metrics.delivered.labels(self.sink.label).inc(len(wanted))
        self._refusals, self._wait_s = 0, self._backoff_s[0]
        self._sent = wanted[-1]

    def _bury(self, stored: StoredEvent, error: RefusedError) -> None:
        reason = redact(str(error))
        letter = DeadLetter(time.time_ns(), reason, stored.event)
        path = dead_letters.append(self._store_path, self.sink.label, letter)
        self._metrics.failures.labels(self.sink.label).inc()
        self._metrics.dead_letters.labels(self.sink.label).inc()
        log.error(
            "event refused: written to dead letters", sink=self.sink.name, event_id=stored.event.id, reason=reason,
            file=str(path),
        )  # fmt: skip

    def _start(self) -> "_OpenSink":
        """Open the sink after its cursor or after the newest event that it holds: a crash may separate the two."""
        generation = self._state.generation
        if generation != self._generation:  # row numbers of another store
            self._generation, self._refused_to = generation, 0
        with ExitStack() as opened:
            reader = opened.enter_context(StoreReader(self._store_path))
            writer = opened.enter_context(closing(open_writable(self._store_path)))
            held = self.sink.open()
            row = reader.row_of(held) if held is not None else None
            sent = self._sent
            sent_row = sent.row if sent is not None and reader.row_of(sent.event.id) == sent.row else 0
            cursor = reader.cursor(self.sink.name)
            sink = _OpenSink(self._store_path, generation, reader, writer, cursor, opened)
            sink.acknowledge(self.sink.name, max(row or 0, sent_row))
            sink.connections = opened.pop_all()
            return sink

    def _fail(self, error: Exception) -> None:
        reason = redact(f"{type(error).__name__}: {error}")
        say = log.debug if reason == self.error else log.warning
        self.error, self.is_failing = reason, True
        self._metrics.failures.labels(self.sink.label).inc()
        say("sink failed", sink=self.sink.name, error=reason, retry_s=round(self._wait_s, 1))
        self._close()

    def _wait_for_store(self, error: StoreError) -> None:
        """Report damage to the store's writer; log any other error once."""
        generation = self._open.generation if self._open is not None else self._state.generation
        if isinstance(error, DamagedStoreError):
            self._state.damage = (generation, error)
        if str(error) != self.error:
            log.warning("sink waiting for the store", sink=self.sink.name, reason=str(error))
        self.error = str(error)
        self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open.connections.close()
            self._open = None
        try:
            self.sink.close()
        except Exception as error:  # noqa: BLE001  (as above)
            log.warning("sink not closed", sink=self.sink.name, error=redact(str(error)))


@dataclass
class _OpenSink:
    """An open sink and its position in the store."""

    store_path: Path
    generation: int
    reader: StoreReader
    writer: sqlite3.Connection  # writes only the cursors
    row: int  # the last one that the sink accepted, or does not want
    connections: ExitStack

    def acknowledge(self, sink: str, row: int) -> None:
        if row <= self.row:
            return
        self.row = row
        with transaction(self.writer, self.store_path, is_durable=False):  # a lost cursor costs duplicates, no event
            self.writer.execute(_SET_CURSOR, (sink, row))
