"""The outbox: delivery of events from the store to every sink, at least once, in order.

In: the store, written by another thread or process, and the sinks.  Out: each event to each sink, and a cursor per
sink.  Every sink has its own thread, so that a failing or slow one does not delay the others.  While the store cannot
be read, or is being replaced, sinks wait.
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

from pipeline.errors import DamagedStoreError, StoreError
from pipeline.redaction import redact
from pipeline.sinks.sink import Sink
from pipeline.store.schema import open_writable, transaction
from pipeline.store.store import StoredEvent, StoreReader

BATCH = 200  # events
POLL_S = 1.0  # without a call of `wake`, as when another process writes the store
BACKOFF_S: Final = (0.5, 60.0)  # first, longest

log = structlog.get_logger()

_SET_CURSOR = "INSERT INTO cursors (sink, row) VALUES (?, ?) ON CONFLICT (sink) DO UPDATE SET row = excluded.row"


@dataclass
class _StoreState:
    """State of the store, shared between its writer and the sinks' threads."""

    is_open: bool
    generation: int = 0  # how often it was opened
    damage: tuple[int, DamagedStoreError] | None = None  # damage that a sink's thread met, and in which generation


class Outbox:
    """Deliver events from construction on; with `store_is_open` false from the call of `store_opened` on."""

    def __init__(
        self,
        store_path: Path,
        sinks: Sequence[Sink],
        backoff_s: tuple[float, float] = BACKOFF_S,
        store_is_open: bool = True,
    ) -> None:
        names = [sink.name for sink in sinks]
        if len(set(names)) < len(names):
            raise ValueError(f"sinks {names}: names must be unique")
        self._store_path = store_path
        self._reader: StoreReader | None = None
        self._backlog = dict.fromkeys(names, 0)
        self._state = _StoreState(store_is_open)
        self._deliveries = [_Delivery(store_path, sink, backoff_s, self._state) for sink in sinks]
        for delivery in self._deliveries:
            delivery.start()

    def wake(self) -> None:
        """Announce new events in the store.  Cheap; to be called after each commit."""
        for delivery in self._deliveries:
            delivery.wake.set()

    def store_closed(self) -> None:
        """Let sinks deliver what they can still read, then wait.  Does not block."""
        self._state.is_open = False

    def store_opened(self) -> None:
        """Let sinks read the store at its path, which may be a new one.  Does not block."""
        self._state.generation += 1
        self._state.is_open = True
        self.wake()

    @property
    def damage(self) -> DamagedStoreError | None:
        """Return the damage that a sink met in the store at its path, if any."""
        damage = self._state.damage
        return damage[1] if damage is not None and damage[0] == self._state.generation else None

    def backlog(self) -> dict[str, int]:
        """Return the events not yet acknowledged, by sink; the last known numbers while the store cannot be read."""
        try:
            if self._reader is None or not self._reader.is_current():
                self._close_reader()
                self._reader = StoreReader(self._store_path)
            for name in self._backlog:
                self._backlog[name] = self._reader.backlog(name)
        except StoreError as error:
            log.debug("backlog unknown", reason=str(error))
            self._close_reader()
        return dict(self._backlog)

    def undelivered_by_failing(self) -> int:
        """Return how many events failing sinks miss if the store is lost now; the others are up to date."""
        return max((self._backlog[each.sink.name] for each in self._deliveries if each.is_failing), default=0)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def failures(self) -> dict[str, str]:
        """Return the errors of the sinks that fail at present, by sink."""
        errors = {delivery.sink.name: delivery.error for delivery in self._deliveries}
        return {name: error for name, error in errors.items() if error is not None}

    def stop(self, deadline_s: float = 5.0) -> dict[str, int]:
        """Deliver what is stored, until the deadline at the latest, without waiting for failing sinks.

        Return the backlog that remains for the next start.
        """
        end = time.monotonic() + deadline_s
        for delivery in self._deliveries:
            delivery.stop_at(end)
        for delivery in self._deliveries:
            delivery.join(max(0.0, end - time.monotonic()))
        backlog = self.backlog()
        self._close_reader()
        return backlog


class _Delivery(threading.Thread):
    """The thread of one sink; a daemon, so that a hanging sink does not keep the process from ending."""

    def __init__(self, store_path: Path, sink: Sink, backoff_s: tuple[float, float], state: _StoreState) -> None:
        super().__init__(name=f"outbox {sink.name}", daemon=True)
        self.sink = sink
        self.wake = threading.Event()
        self.error: str | None = None
        self.is_failing = False  # the sink, not the store
        self._store_path = store_path
        self._backoff_s = backoff_s
        self._state = state
        self._sent: StoredEvent | None = None  # the last one, possibly not acknowledged
        self._stopping = threading.Event()
        self._end_s = float("inf")
        self._open: _OpenSink | None = None

    def stop_at(self, end_s: float) -> None:
        """Stop delivering at this time of the monotonic clock."""
        self._end_s = end_s
        self._stopping.set()
        self.wake.set()

    def run(self) -> None:
        wait_s = self._backoff_s[0]
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
                self._fail(error, wait_s)
                if stopping:
                    break
                self._stopping.wait(wait_s * random.uniform(0.75, 1.25))
                wait_s = min(2 * wait_s, self._backoff_s[1])
            else:
                wait_s, self.error, self.is_failing = self._backoff_s[0], None, False
                if stopping:
                    break
                self.wake.wait(POLL_S)
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
            batch = opened.reader.events(BATCH, after=opened.row)
            if not batch:
                return
            self.sink.send([stored.event for stored in batch])
            opened.row = batch[-1].row
            self._sent = batch[-1]
            opened.acknowledge(self.sink.name)

    def _start(self) -> "_OpenSink":
        """Open the sink after its cursor or after the newest event that it holds: a crash may separate the two."""
        generation = self._state.generation
        with ExitStack() as opened:
            reader = opened.enter_context(StoreReader(self._store_path))
            writer = opened.enter_context(closing(open_writable(self._store_path)))
            held = self.sink.open()
            row = reader.row_of(held) if held is not None else None
            sent = self._sent
            sent_row = sent.row if sent is not None and reader.row_of(sent.event.id) == sent.row else 0
            row = max(reader.cursor(self.sink.name), row or 0, sent_row)
            return _OpenSink(self._store_path, generation, reader, writer, row, opened.pop_all())

    def _fail(self, error: Exception, wait_s: float) -> None:
        self.error, self.is_failing = redact(f"{type(error).__name__}: {error}"), True
        log.warning("sink failed", sink=self.sink.name, error=self.error, retry_s=round(wait_s, 1))
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
            log.warning("sink not closed", sink=self.sink.name, error=str(error))


@dataclass
class _OpenSink:
    """An open sink and its position in the store."""

    store_path: Path
    generation: int
    reader: StoreReader
    writer: sqlite3.Connection  # writes only the cursors
    row: int  # the last one that the sink accepted
    connections: ExitStack

    def acknowledge(self, sink: str) -> None:
        with transaction(self.writer, self.store_path):
            self.writer.execute(_SET_CURSOR, (sink, self.row))
