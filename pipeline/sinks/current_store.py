"""The store that is at its path now: opened again after every failure, and when the file is not the one it was.

In: events.  Out: the same in the store, also when its file was deleted, replaced, overwritten or damaged just after it
took them.  A damaged file is moved aside, never deleted, and a new one begun.  Used by one thread.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from pipeline.errors import DamagedStoreError, StoreError
from pipeline.sinks.outbox import Outbox
from pipeline.store.schema import identity, move_aside
from pipeline.store.store import Store, StoreReader
from pipeline.types import Event, EventKind, Track, TrackState

BUSY_TIMEOUT_S = 2.0  # a store that is locked for longer fails
VERIFY_S = 2.0  # how often what was stored is read again from the file that is there
MAX_UNVERIFIED = 10_000  # events
ASIDE_PAUSE_S = 60.0  # between two damaged stores: a broken disk must not be filled with them


class CurrentStore:
    """`on_gone`: called when a store, with what the sinks were not given yet, has left its path."""

    def __init__(self, path: Path, outbox: Outbox, on_gone: Callable[[], None]) -> None:
        self._path = path
        self._outbox = outbox
        self._on_gone = on_gone
        self._store: Store | None = None
        self._active: dict[str, list[Event]] = {}  # what opened the alerts of running tracks, by ULID
        self._unverified: list[Event] = []  # stored, but not yet read again
        self._verified_s = 0.0
        self._aside_s = float("-inf")
        self._log = structlog.get_logger()

    def open(self) -> Store:
        """The one that is there, or a new one.  Raises StoreError."""
        if self._store is not None and not self._store.is_current():
            self._log.error("store deleted or replaced: opened again", store=str(self._path))
            self.close()
            self._on_gone()
        if self._outbox.damage is not None:
            raise self._outbox.damage
        if self._store is None:
            store = self._store = Store(self._path, BUSY_TIMEOUT_S)
            store.restore([event for events in self._active.values() for event in events])
            self._make_shrinkable(store)
            if self._unverified:
                store.append(self._unverified)  # those that it has are ignored
            self._outbox.store_back()
        return self._store

    def append(self, events: Sequence[Event]) -> None:
        """Raises StoreError, as all that follow."""
        if not events:
            return
        self.open().append(events)
        self._unverified += events
        for event in events:
            if event.track is not None and event.kind is EventKind.TRACK_CONFIRMED:
                self._active.setdefault(event.track.ulid, []).append(event)
            elif event.track is not None and event.kind is EventKind.TRACK_LOST:
                self._active.pop(event.track.ulid, None)
        if len(self._unverified) >= MAX_UNVERIFIED:
            self._verify()

    def update_tracks(self, tracks: Iterable[Track]) -> None:
        known = list(tracks)
        self.open().update_tracks(known)
        for track in known:
            if track.state is TrackState.LOST:
                self._active.pop(track.ulid, None)

    def end_inherited(self) -> None:
        """All events so far were an earlier process's: its alerts and tracks have ended with it."""
        self._active.clear()
        self.open().end_orphans()

    def verify(self, now: bool) -> None:
        """From time to time, or now."""
        if now or time.monotonic() - self._verified_s >= VERIFY_S:
            self._verify()

    def _verify(self) -> None:
        """A file that was deleted or overwritten takes commits for a while, of which nobody else sees anything."""
        self._verified_s = time.monotonic()
        stored = self.open().sequence()
        with StoreReader(self._path) as reader:
            if reader.sequence() < stored:
                raise DamagedStoreError(f"{self._path}: does not hold what was stored in it")
        self._unverified.clear()

    def failed(self, error: Exception) -> None:
        """Close it, after any failure; a damaged one is moved aside."""
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
        self._aside_s = now_s
        self._log.error("damaged store moved aside: a new one is begun", moved_to=str(aside))
        self._on_gone()

    def close(self) -> None:
        self._outbox.store_gone()
        if self._store is not None:
            if not self._store.is_current():
                self._store.discard_side_files()
            self._store.close()
            self._store = None

    def _make_shrinkable(self, store: Store) -> None:
        try:
            store.make_shrinkable()
        except StoreError as error:  # no space for a copy of it, or it is in use: at the next start
            self._log.warning("store not prepared for incremental vacuum", reason=str(error))
