"""The store's writer: a thread that takes events and tracks from the frame loop and never makes it wait.

In: events and tracks.  Out: the store, the outbox woken, metrics and the log.  While the store fails (locked, full,
read-only, damaged, deleted) events wait in the spill file, or where that cannot be written in bounded memory, and the
store is tried again; what is dropped is counted.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from pipeline.errors import StoreError
from pipeline.sinks.current_store import CurrentStore
from pipeline.sinks.outbox import Outbox
from pipeline.store.spill import SpillFile
from pipeline.store.store import encoded
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.types import Event, Track

MAX_WAITING = 10_000  # events in memory
MAX_TRACKS = 10_000
BATCH = 200  # events in a transaction
PERIOD_S = 0.5  # how often running tracks are written; events are written at once
RETRY_S = 0.5


class _Waiting(NamedTuple):
    event: Event
    queued_ns: int  # monotonic


class StoreWriter:
    """`append` and `update_tracks` return at once, from one thread; all else happens in the writer's own."""

    def __init__(self, path: Path, spill_path: Path, outbox: Outbox, metrics: TrackingMetrics) -> None:
        self._store = CurrentStore(path, outbox, self._lose_delivery)
        self._outbox = outbox
        self._metrics = metrics
        self._spill = SpillFile(spill_path)
        self._turn = threading.Lock()  # guards the next three
        self._inbox: deque[_Waiting] = deque()
        self._tracks: dict[str, Track] = {}  # by ULID, to be written at the next occasion
        self._lost_snapshots: deque[str] = deque(maxlen=MAX_WAITING)
        self._batch: list[_Waiting] = []  # taken from the inbox, neither stored nor spilled yet
        self._failing: str | None = None
        self._failing_since_s = self._retry_s = self._periodic_s = 0.0
        self._spill_failing = False
        self._backlog: dict[str, int] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._log = structlog.get_logger()
        self._thread.start()

    def append(self, events: Iterable[Event]) -> None:
        queued_ns = time.monotonic_ns()
        waiting = [_Waiting(event, queued_ns) for event in events if self._is_valid(event)]
        with self._turn:
            self._inbox += waiting
            while len(self._inbox) > MAX_WAITING:
                self._inbox.popleft()
                self._metrics.store.lost.labels("memory").inc()
        self._wake.set()

    def update_tracks(self, tracks: Iterable[Track]) -> None:
        """Their newest state, for the next periodic write."""
        with self._turn:
            for track in tracks:
                self._tracks.pop(track.ulid, None)
                self._tracks[track.ulid] = track
            while len(self._tracks) > MAX_TRACKS:
                self._tracks.pop(next(iter(self._tracks)))
                self._metrics.store.tracks_lost.inc()

    def forget_snapshot(self, name: str) -> None:
        """It was not written: no alert is to name it.  From any thread."""
        with self._turn:
            self._lost_snapshots.append(name)

    def stop(self, deadline_s: float) -> None:
        """Store or spill what waits, but no longer than the deadline; the rest is counted as lost."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(deadline_s)
        with self._turn:
            left = len(self._inbox) + len(self._batch)
        if left:
            self._metrics.store.lost.labels("exit").inc(left)
            self._log.error("events lost: neither the store nor the spill file took them", events=left)

    def _is_valid(self, item: Event | Track) -> bool:
        try:
            encoded(item)
        except StoreError as error:
            self._log.error("not stored", reason=str(error))
            if isinstance(item, Event):
                self._metrics.store.lost.labels("invalid").inc()
            return False
        return True

    def _run(self) -> None:
        while True:
            stopping = self._stopping.is_set()  # read first: what came before the stop is then written below
            self._wake.clear()
            if stopping or not self._failing or time.monotonic() >= self._retry_s:
                try:
                    self._write(stopping)
                except Exception as error:  # noqa: BLE001  (the thread's top level: the next try may go well)
                    self._fail(error)
            if self._failing:
                self._spill_all()
            self._show()
            if stopping:
                break
            self._wake.wait(RETRY_S if self._failing else PERIOD_S)
        self._store.close()

    def _write(self, stopping: bool) -> None:
        """Everything that waits.  What was not stored when it raises still waits."""
        self._store.open()
        self._store_spilled()
        self._store_batch()
        while batch := self._take():
            try:
                self._store_batch()
            finally:
                self._tell(batch)
        now_s = time.monotonic()
        if stopping or now_s - self._periodic_s >= PERIOD_S:
            self._periodic_s = now_s
            self._store_tracks()
            self._backlog = self._outbox.backlog()
        self._store.verify(now=stopping)
        if self._failing:
            failed_s = round(now_s - self._failing_since_s, 1)
            self._log.warning("store recovered: what waited is stored", failed_s=failed_s)
            self._failing = None

    def _store_spilled(self) -> None:
        while self._spill.count > 0:
            was_inherited = self._spill.is_inherited
            try:
                batch = self._spill.batch(BATCH)
            except FileNotFoundError:
                self._metrics.store.lost.labels("unreadable").inc(self._spill.clear())
                return
            self._append(batch.events)
            self._metrics.store.lost.labels("unreadable").inc(batch.unreadable)
            self._spill.taken(batch)
            if was_inherited and not self._spill.is_inherited:
                self._store.end_inherited()

    def _store_batch(self) -> None:
        self._append([waiting.event for waiting in self._batch])
        batch, self._batch = self._batch, []
        for waiting in batch:
            self._metrics.stage("sink", time.monotonic_ns() - waiting.queued_ns)

    def _append(self, events: Sequence[Event]) -> None:
        self._store.append(events)
        for event in events:
            self._metrics.stored(event)
        if events:
            self._outbox.wake()

    def _store_tracks(self) -> None:
        with self._turn:
            tracks, self._tracks = self._tracks, {}
            snapshots = list(self._lost_snapshots)
        try:
            self._store.update_tracks(filter(self._is_valid, tracks.values()))
            if snapshots:
                self._store.open().forget_snapshots(snapshots)
        except StoreError:
            with self._turn:
                self._tracks = tracks | self._tracks
            raise
        with self._turn:
            for _ in snapshots:
                self._lost_snapshots.popleft()

    def _take(self) -> list[_Waiting]:
        with self._turn:
            self._batch = [self._inbox.popleft() for _ in range(min(BATCH, len(self._inbox)))]
        return self._batch

    def _spill_all(self) -> None:
        """Into the spill file, as much as it takes.  What was taken before goes first."""
        told = bool(self._batch)
        while self._batch or self._take():
            if not told:
                self._tell(self._batch)
            told = False
            try:
                self._spill.append([waiting.event for waiting in self._batch])
            except OSError as error:
                if not self._spill_failing:
                    self._log.error("spill file cannot be written: events wait in memory", reason=str(error))
                self._spill_failing = True
                return
            self._spill_failing = False
            self._batch = []

    def _fail(self, error: Exception) -> None:
        now_s, reason = time.monotonic(), str(error) or type(error).__name__
        self._retry_s = now_s + RETRY_S
        if reason != self._failing:
            self._log.error("store failing: events wait, and it is tried again", reason=reason)
        else:
            self._log.debug("store failing", reason=reason)
        if self._failing is None:
            self._failing_since_s = now_s
        self._failing = reason
        self._store.failed(error)

    def _lose_delivery(self) -> None:
        """What a failing sink had not been given yet stays in the store that is gone."""
        undelivered = self._outbox.left_behind()
        if undelivered:
            self._metrics.store.lost.labels("damaged").inc(undelivered)
            self._log.error("undelivered events were in the store that is gone", events=undelivered)

    def _show(self) -> None:
        with self._turn:
            waiting = len(self._inbox) + len(self._batch) + self._spill.count
        self._metrics.store.failing.set(self._failing is not None)
        self._metrics.store.waiting.set(waiting)
        for sink, backlog in self._backlog.items():
            self._metrics.backlog.labels(sink.partition(":")[0]).set(backlog + waiting)

    def _tell(self, batch: Sequence[_Waiting]) -> None:
        for event, _ in batch:
            about = {"track": event.track.id, "label": event.track.label} if event.track else {}
            if event.cause is not None:
                about = {"cause": event.cause}
            self._log.info(event.kind, camera=event.camera, severity=event.severity, frame=event.frame, **about)
