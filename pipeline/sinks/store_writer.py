"""The store's writer: a thread that stores events and tracks without blocking the frame loop.

In: events and tracks.  Out: the store, a wake-up of the outbox, metrics and the log.  While the store cannot be written
(locked, full, read-only, damaged, deleted), events are kept in the spill file, or in bounded memory where that cannot
be written either, and writing is retried; dropped events are counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from pipeline.errors import StoreError
from pipeline.sinks.current_store import CurrentStore
from pipeline.sinks.outbox import Outbox
from pipeline.store.encoding import encoded
from pipeline.store.spill import SpillFile
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.types import Event, Track

MAX_QUEUED = 10_000  # events in memory
MAX_TRACKS = 10_000
BATCH = 200  # events per transaction
PERIOD_S = 0.5  # how often active tracks are written; events are written at once
RETRY_S = 0.5


class _Queued(NamedTuple):
    event: Event
    queued_ns: int  # monotonic
    kept: Callable[[], None] | None = None  # called once it is in the store or in the spill file, or is lost


class StoreWriter:
    """Write the store in a thread.  Its methods do not block, and may be called by several threads."""

    def __init__(
        self, path: Path, spill_path: Path, outbox: Outbox, metrics: TrackingMetrics, *, ends_orphans: bool = True
    ) -> None:
        """Start; `ends_orphans`: whether alerts that an earlier process left active have ended."""
        self._store = CurrentStore(path, outbox, self._lose_delivery, metrics.count, ends_orphans)
        self._outbox = outbox
        self._metrics = metrics
        self._spill = SpillFile(spill_path)
        self._lock = threading.Lock()  # guards the next three
        self._queue: deque[_Queued] = deque()
        self._tracks: dict[str, Track] = {}  # by ULID, for the next periodic write
        self._lost_snapshots: deque[str] = deque(maxlen=MAX_QUEUED)
        self._batch: list[_Queued] = []  # taken from the queue, neither stored nor spilled yet
        self._failing: str | None = None
        self._failing_since_s = self._retry_s = self._periodic_s = 0.0
        self._spill_failing = False
        self._backlog: dict[str, int] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._log = structlog.get_logger()
        self._thread.start()

    def append(self, events: Sequence[Event], kept: Callable[[], None] | None = None) -> None:
        """Queue events to be stored; `kept` is called once the last of them can be lost no more, or is lost."""
        queued_ns = time.monotonic_ns()
        queued = [_Queued(event, queued_ns) for event in events if self._is_valid(event)]
        if queued:
            queued[-1] = queued[-1]._replace(kept=kept)
        elif kept is not None:
            kept()
        dropped = []
        with self._lock:
            self._queue += queued
            while len(self._queue) > MAX_QUEUED:
                dropped.append(self._queue.popleft())
        self._metrics.store.lost.labels("memory").inc(len(dropped))
        _tell(dropped)  # who waits for one that is lost would wait for ever
        self._wake.set()

    def update_tracks(self, tracks: Iterable[Track]) -> None:
        """Keep the newest state of tracks for the next periodic write."""
        with self._lock:
            for track in tracks:
                self._tracks.pop(track.ulid, None)
                self._tracks[track.ulid] = track
            while len(self._tracks) > MAX_TRACKS:
                self._tracks.pop(next(iter(self._tracks)))
                self._metrics.store.tracks_lost.inc()

    def forget_snapshot(self, name: str) -> None:
        """Remove the references to a snapshot that was not written.  Thread-safe."""
        with self._lock:
            self._lost_snapshots.append(name)

    def stop(self, deadline_s: float) -> None:
        """Store or spill what is queued, until the deadline at the latest; count the rest as lost."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(deadline_s)
        with self._lock:
            left = len(self._queue) + len(self._batch)
        if left:
            self._metrics.store.lost.labels("exit").inc(left)
            self._log.error("events lost: written neither to the store nor to the spill file", events=left)

    def _is_valid(self, item: Event | Track) -> bool:
        try:
            encoded(item)
        except StoreError as error:
            self._log.error("event or track not stored", reason=str(error))
            if isinstance(item, Event):
                self._metrics.store.lost.labels("invalid").inc()
            return False
        return True

    def _run(self) -> None:
        while True:
            stopping = self._stopping.is_set()  # read first, so that everything queued before the stop is written below
            self._wake.clear()
            if stopping or not self._failing or time.monotonic() >= self._retry_s:
                try:
                    self._write(stopping)
                except Exception as error:  # noqa: BLE001  (the thread's top level: the next try may succeed)
                    self._fail(error)
            if self._failing:
                self._spill_all()
            self._update_metrics()
            if stopping:
                break
            self._wake.wait(RETRY_S if self._failing else PERIOD_S)
        self._store.close()

    def _write(self, stopping: bool) -> None:
        """Store everything that is queued.  What was not stored when it raises stays queued."""
        self._store.open()
        self._store_spilled()
        self._store_batch()
        while batch := self._take():
            try:
                self._store_batch()
            finally:
                self._log_events(batch)
        now_s = time.monotonic()
        if stopping or now_s - self._periodic_s >= PERIOD_S:
            self._periodic_s = now_s
            self._store_tracks()
            self._backlog = self._outbox.backlog()
            self._metrics.alerts.set_unacknowledged(self._store.unacknowledged(), time.time_ns())
        self._store.verify(now=stopping)
        if self._failing:
            failed_s = round(now_s - self._failing_since_s, 1)
            self._log.warning("store recovered: queued events are stored", failed_s=failed_s)
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
        self._append([queued.event for queued in self._batch])
        batch, self._batch = self._batch, []
        for queued in batch:
            self._metrics.stage("sink", time.monotonic_ns() - queued.queued_ns)
        _tell(batch)

    def _append(self, events: Sequence[Event]) -> None:
        self._store.append(events)
        for event in events:
            self._metrics.stored(event)
        if events:
            self._outbox.wake()

    def _store_tracks(self) -> None:
        with self._lock:
            tracks, self._tracks = self._tracks, {}
            snapshots = list(self._lost_snapshots)
        try:
            self._store.update_tracks(filter(self._is_valid, tracks.values()))
            if snapshots:
                self._store.open().forget_snapshots(snapshots)
        except StoreError:
            with self._lock:
                self._tracks = tracks | self._tracks
            raise
        with self._lock:
            for _ in snapshots:
                self._lost_snapshots.popleft()

    def _take(self) -> list[_Queued]:
        with self._lock:
            self._batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        return self._batch

    def _spill_all(self) -> None:
        """Write everything that is queued to the spill file, the current batch first."""
        is_logged = bool(self._batch)
        while self._batch or self._take():
            if not is_logged:
                self._log_events(self._batch)
            is_logged = False
            try:
                self._spill.append([queued.event for queued in self._batch])
            except OSError as error:
                if not self._spill_failing:
                    self._log.error("spill file cannot be written: events are kept in memory", reason=str(error))
                self._spill_failing = True
                return
            self._spill_failing = False
            batch, self._batch = self._batch, []
            _tell(batch)

    def _fail(self, error: Exception) -> None:
        now_s, reason = time.monotonic(), str(error) or type(error).__name__
        self._retry_s = now_s + RETRY_S
        if reason != self._failing:
            self._log.error("store failing: events are queued, writing is retried", reason=reason)
        else:
            self._log.debug("store failing", reason=reason)
        if self._failing is None:
            self._failing_since_s = now_s
        self._failing = reason
        self._store.failed(error)

    def _lose_delivery(self, undelivered: int) -> None:
        """Count the events that failing sinks had not received from the store that was replaced."""
        if undelivered:
            self._metrics.store.lost.labels("damaged").inc(undelivered)
            self._log.error("undelivered events lost with the replaced store", events=undelivered)

    def _update_metrics(self) -> None:
        with self._lock:
            waiting = len(self._queue) + len(self._batch) + self._spill.count
        self._metrics.store.failing.set(self._failing is not None)
        self._metrics.store.waiting.set(waiting)
        for sink, backlog in self._backlog.items():
            self._metrics.sinks.backlog.labels(sink.partition(":")[0]).set(backlog + waiting)

    def _log_events(self, batch: Sequence[_Queued]) -> None:
        for event, *_ in batch:
            details = {"track": event.track.id, "label": event.track.label} if event.track else {}
            if event.cause is not None:
                details = {"cause": event.cause}
            if event.host is not None:
                details |= {"host": event.host}
            self._log.info(event.kind, camera=event.camera, severity=event.severity, frame=event.frame, **details)


def _tell(batch: Sequence[_Queued]) -> None:
    for queued in batch:
        if queued.kept is not None:
            queued.kept()
