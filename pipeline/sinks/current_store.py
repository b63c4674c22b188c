"""The store at its path, reopened after every failure and whenever the file was replaced.

In: events.  Out: the same in the store, even if its file is deleted, replaced, overwritten or damaged just after they
were written.  A damaged file is moved aside, never deleted, and a new one created.  Used by one thread.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from pipeline.errors import DamagedStoreError, StoreError
from pipeline.sinks.outbox import Outbox
from pipeline.store.alert import Unacknowledged
from pipeline.store.reader import StoreReader
from pipeline.store.schema import identity, move_aside
from pipeline.store.store import Store
from pipeline.types import Event, EventKind, Track

BUSY_TIMEOUT_S = 2.0  # a write to a store that is locked for longer fails
VERIFY_S = 2.0  # how often stored events are read back from the file
MAX_UNVERIFIED = 10_000  # events
ASIDE_PAUSE_S = 60.0  # between two damaged stores: they must not fill a faulty disk


class CurrentStore:
    """Keep the store at a path open.

    Args:
        path: of the store.
        outbox: told when the store is open and when not.
        on_lost: called with the number of undelivered events that were in a store that is gone.
        on_orphaned: called with the events that ended the alerts of an earlier process.
        ends_orphans: False: other hosts go on with alerts that are active in this store.
    """

    def __init__(
        self,
        path: Path,
        outbox: Outbox,
        on_lost: Callable[[int], None],
        on_orphaned: Callable[[Sequence[Event]], None],
        ends_orphans: bool = True,
    ) -> None:
        self._path = path
        self._outbox = outbox
        self._on_lost = on_lost
        self._on_orphaned = on_orphaned
        self._ends_orphans = ends_orphans
        self._store: Store | None = None
        self._active: dict[str, dict[EventKind, Event]] = {}  # the newest event of each kind, by active alert
        self._unverified: list[Event] = []  # stored, but not read back yet
        self._verified_s = 0.0
        self._aside_s = float("-inf")
        self._damaged: Path | None = None  # moved aside, and not replaced yet
        self._log = structlog.get_logger()

    def open(self) -> Store:
        """Return the store at the path, or a new one.  Raise StoreError."""
        if self._store is not None and not self._store.is_current():
            self._log.error("store deleted or replaced: reopened", store=str(self._path))
            self.close()
            self._on_lost(self._outbox.undelivered_by_failing())
        if self._outbox.damage is not None:
            raise self._outbox.damage
        if self._store is None:
            continued = self._active if self._ends_orphans else None
            store = self._store = Store(self._path, BUSY_TIMEOUT_S, continued, self._damaged)
            if self._damaged is not None:
                self._log.warning("rows of the damaged store taken over", rows=store.taken_over)
                self._on_lost(max(0, self._outbox.undelivered_by_failing() - store.undelivered()))
                self._damaged = None
            self._on_orphaned(store.orphaned)
            store.restore(event for events in self._active.values() for event in events.values())
            self._enable_incremental_vacuum(store)
            if self._unverified:
                store.append(self._unverified)  # events that it contains are ignored
            self._outbox.store_opened()
        return self._store

    def append(self, events: Sequence[Event]) -> None:
        """Store events.  Raise StoreError."""
        if not events:
            return
        self.open().append(events)
        self._unverified += events
        for event in events:
            self._remember(event)
        if len(self._unverified) >= MAX_UNVERIFIED:
            self._verify()

    def _remember(self, event: Event) -> None:
        if event.alert is None:
            return
        if event.ends_alert:
            self._active.pop(event.alert, None)
        elif event.kind in (EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED) or event.alert in self._active:
            newest = self._active.setdefault(event.alert, {})
            newest.pop(event.kind, None)  # keeps their order
            newest[event.kind] = event

    def update_tracks(self, tracks: Iterable[Track]) -> None:
        """Store the newest state of tracks.  Raise StoreError."""
        self.open().update_tracks(tracks)

    def unacknowledged(self) -> list[Unacknowledged]:
        """Return how many alerts wait for an operator.  Raise StoreError."""
        return self.open().unacknowledged()

    def end_inherited(self) -> None:
        """End the alerts and tracks of an earlier process, whose events were stored so far.  Raise StoreError."""
        if not self._ends_orphans:
            return
        self._active.clear()
        self._on_orphaned(self.open().end_orphans())

    def verify(self, now: bool) -> None:
        """Read back what was stored, every VERIFY_S or now.  Raise StoreError where it is missing."""
        if now or time.monotonic() - self._verified_s >= VERIFY_S:
            self._verify()

    def _verify(self) -> None:
        """Read back through a new connection: a deleted or overwritten file still accepts commits for a while."""
        self._verified_s = time.monotonic()
        stored = self.open().sequence()
        with StoreReader(self._path) as reader:
            if reader.sequence() < stored:
                raise DamagedStoreError(f"{self._path}: stored events are missing")
        self._unverified.clear()

    def failed(self, error: Exception) -> None:
        """Close the store after a failure; move a damaged one aside."""
        self.close()
        now_s = time.monotonic()
        if not isinstance(error, DamagedStoreError) or now_s - self._aside_s < ASIDE_PAUSE_S:
            return
        if identity(self._path) is None:
            return
        try:
            aside = move_aside(self._path)
        except StoreError as failure:
            self._log.error("damaged store cannot be moved aside", reason=str(failure))
            return
        self._aside_s, self._damaged = now_s, aside
        self._log.error("damaged store moved aside: new one created", moved_to=str(aside))

    def close(self) -> None:
        """Close the store; sinks wait until it is open again."""
        self._outbox.store_closed()
        if self._store is not None:
            if not self._store.is_current():
                self._store.discard_side_files()
            self._store.close()
            self._store = None

    def _enable_incremental_vacuum(self, store: Store) -> None:
        try:
            store.enable_incremental_vacuum()
        except StoreError as error:  # no space for a copy, or in use: retried at the next start
            self._log.warning("incremental vacuum not enabled", reason=str(error))
