"""The outbox: delivery of events from the store to every sink, at least once, in order.

In: the store, written by another thread or process, and the sinks.  Out: each event to each sink, and a cursor per
sink.  Every sink has its own thread, so that a failing or slow one does not delay the others.  While the store cannot
be read, or is being replaced, sinks wait.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from pipeline.errors import DamagedStoreError, StoreError
from pipeline.sinks.delivery import Delivery, StoreState
from pipeline.sinks.sink import Sink
from pipeline.store.reader import StoreReader
from pipeline.store.schema import open_writable, transaction
from pipeline.telemetry.sinks import SinkMetrics

BACKOFF_S: Final = (0.5, 60.0)  # first, longest

log = structlog.get_logger()

_BEGIN = "INSERT OR IGNORE INTO cursors (sink, row) SELECT ?, coalesce(max(row), 0) FROM events WHERE ?"


class Outbox:
    """Deliver events from construction on; with `store_is_open` false from the call of `store_opened` on."""

    def __init__(
        self,
        store_path: Path,
        sinks: Sequence[Sink],
        backoff_s: tuple[float, float] = BACKOFF_S,
        store_is_open: bool = True,
        metrics: SinkMetrics | None = None,
    ) -> None:
        names = [sink.name for sink in sinks]
        if len(set(names)) < len(names):
            raise ValueError(f"sinks {names}: names must be unique")
        self._store_path = store_path
        self._sinks = sinks
        self._metrics = metrics or SinkMetrics(CollectorRegistry())
        self._reader: StoreReader | None = None
        self._backlog = dict.fromkeys(names, 0)
        self._state = StoreState(store_is_open)
        for sink in sinks:
            self._metrics.watch(sink.label)
        if store_is_open:
            self._begin()
        self._deliveries = [Delivery(store_path, sink, backoff_s, self._state, self._metrics) for sink in sinks]
        for delivery in self._deliveries:
            delivery.start()

    def wake(self) -> None:
        """Announce new events in the store.  Cheap; to be called after each commit."""
        for delivery in self._deliveries:
            delivery.wake.set()

    def store_closed(self) -> None:
        """Let sinks deliver what they can still read, then wait.  Does not block."""
        self._state.is_open = False
        self._state.damage = None  # told to the writer, which closes the store for it

    def store_opened(self) -> None:
        """Let sinks read the store at its path, which may be a new one.  Raise StoreError."""
        self._begin()
        self._state.generation += 1
        self._state.is_open = True
        self.wake()

    def _begin(self) -> None:
        """Set the cursors of sinks that are new to the store, before anything is stored that they must not miss.

        A store that replaces another while the program runs holds only events of this run: there they begin with the
        first one.
        """
        is_first = self._state.generation == 0
        new = [sink.name for sink in self._sinks if sink.from_now_on]
        if not new:
            return
        with (
            closing(open_writable(self._store_path)) as connection,
            transaction(connection, self._store_path),
        ):
            connection.executemany(_BEGIN, ((name, is_first) for name in new))

    def report_damage(self, error: DamagedStoreError) -> None:
        """Let the writer replace the store at its path.  Thread-safe."""
        self._state.damage = (self._state.generation, error)

    @property
    def damage(self) -> DamagedStoreError | None:
        """Return the damage that a sink or a check met in the store at its path, if any."""
        damage = self._state.damage
        return damage[1] if damage is not None and damage[0] == self._state.generation else None

    def backlog(self) -> dict[str, int]:
        """Return the events not yet acknowledged, by sink; the last known numbers while the store cannot be read."""
        try:
            if self._reader is None or not self._reader.is_current():
                self._close_reader()
                self._reader = StoreReader(self._store_path)
            for sink in self._sinks:
                self._backlog[sink.name] = self._reader.backlog(sink.name)
                self._metrics.oldest(sink.label, self._reader.oldest_waiting(sink.name))
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
