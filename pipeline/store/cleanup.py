"""Retention thread: delete what `pipeline.store.retention` plans.

In: the store, the snapshots and clips, and the free space of their disks.  Out: deleted files and rows, and a smaller
store.  Open alerts (active or not acknowledged) keep their rows and snapshots, and active ones their clips.
Transactions are short, so that the store's writer never waits long.
"""

import os
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from pipeline.config.models import Config
from pipeline.ids import ULID_LENGTH
from pipeline.store.clips import alert_of
from pipeline.store.metrics import StoreMetrics
from pipeline.store.retention import DAY_NS, GB, DeletionPlan, Disk, Inventory, Limits, Rows, StoredFile, plan
from pipeline.store.schema import failures, live_bytes, open_readonly, open_writable, pages, transaction
from pipeline.store.statements import (
    DELETABLE_EVENTS,
    DELETE_ACTIONS,
    DELETE_ALERTS,
    DELETE_EVENTS,
    DELETE_TRACKS,
    EVENTS_BY_MINUTE,
    FORGET_SNAPSHOT,
    SNAPSHOTS,
    TRACKS_BY_MINUTE,
)

PERIOD_S = 30.0
IDLE_RATIO = 100  # pause after a run, as a multiple of its duration, ...
MAX_PAUSE_S = 3600.0  # ... up to this
BUSY_TIMEOUT_S = 2.0
BATCH_ROWS = 500  # per transaction
MAX_ROWS = 20_000  # per run
VACUUM_PAGES = 500  # per statement
NEVER_DELIVERED = 2**62
STOP_S = 1.0
SNAPSHOT, SIDECAR = ".jpg", ".json"  # endings of names


class DeletionLog(Protocol):
    """Is told of what retention is about to delete, and never fails."""

    def deleting(self, names: Sequence[str]) -> None:
        """Take the names of files, relative to the run folder."""

    def deleting_events(self, before_ns: int) -> None:
        """Take the time (UTC) before which events are deleted."""


class Retention:
    """Run retention in a thread from entry to exit.

    Args:
        config: of the site.
        metrics: of the store.
        sinks: names of the sinks whose undelivered events are kept.
        deletions: told of all that is deleted.
    """

    def __init__(
        self, config: Config, metrics: StoreMetrics, sinks: Sequence[str], deletions: DeletionLog | None = None
    ) -> None:
        limits = config.retention
        free_bytes = None if limits.min_free_gb is None else round(limits.min_free_gb * GB)
        self._limits = Limits(limits.days, round(limits.max_gb * GB), free_bytes)
        self._store_path = config.store_path
        self._snapshots = config.snapshots_path
        self._clips = config.clips_path
        self._sidecars = config.evidence_path
        self._run_dir = config.run_dir
        self._metrics = metrics
        self._sinks = sinks
        self._deletions = deletions
        self._deleted_names: list[str] = []  # snapshots that alerts still refer to
        self._last_error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._log = structlog.get_logger()

    def __enter__(self) -> None:
        self._metrics.retention_run.set_to_current_time()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        pause_s = 1.0  # the store may not exist yet
        while not self._stop.wait(pause_s):
            started_s = time.monotonic()
            try:
                complete = self.run_once(time.time_ns())
                self._last_error = ""
            except Exception as error:  # noqa: BLE001  (the thread's top level: the next run may succeed)
                log = self._log.debug if str(error) == self._last_error else self._log.warning
                log("retention failed", reason=str(error))
                self._last_error, complete = str(error), True
            run_s = time.monotonic() - started_s
            pause_s = min(MAX_PAUSE_S, max(PERIOD_S, IDLE_RATIO * run_s)) if complete else run_s

    def run_once(self, now_ns: int) -> bool:
        """Delete up to MAX_ROWS rows and all planned files.

        Returns:
            False where there is more to delete.

        Raises:
            StoreError: the store cannot be read or written.
            OSError: a file cannot be read or deleted.
        """
        with failures(self._store_path), closing(open_readonly(self._store_path)) as connection:
            delivered = self._delivered(connection)
            inventory = self._inventory(connection, now_ns)
            chosen = plan(inventory, self._limits)
            if chosen.excess_bytes:  # deleting files is not enough
                chosen = plan(replace(inventory, rows=_rows(connection, delivered)), self._limits)
        freed_bytes = self._delete_files(chosen)  # first: a full disk may prevent writing the store
        with failures(self._store_path), closing(open_writable(self._store_path, BUSY_TIMEOUT_S)) as connection:
            self._forget_snapshots(connection)
            deleted = self._delete_rows(connection, chosen, delivered)
            freed_bytes += self._shrink(connection) if deleted else 0
        if chosen.files or deleted:
            self._log.info("retention deleted", files=len(chosen.files), rows=deleted, freed_bytes=freed_bytes)
        complete = deleted < MAX_ROWS
        self._metrics.excess_bytes.set(chosen.excess_bytes)
        self._metrics.retention_run.set(now_ns / 1e9)
        return complete

    def _delivered(self, connection: sqlite3.Connection) -> int:
        """Return the row up to which every sink has acknowledged its events."""
        cursors = dict(connection.execute("SELECT sink, row FROM cursors"))
        return min((cursors.get(sink, 0) for sink in self._sinks), default=NEVER_DELIVERED)

    def _inventory(self, connection: sqlite3.Connection, now_ns: int) -> Inventory:
        """Return what may be deleted, without rows: counting them is slower."""
        kept, closed, ended = set[str](), set[str](), set[str]()  # names of snapshots, and ids of alerts
        for alert, snapshot, is_open, keeps_clip in connection.execute(SNAPSHOTS):
            (kept if is_open else closed).update((snapshot or "", alert))
            if is_open and not keeps_clip:
                ended.add(alert)
        files = [*_named(self._snapshots, SNAPSHOT), *_clips(self._clips), *_named(self._sidecars, SIDECAR)]
        files.sort(key=lambda file: file.time_ns)
        deletable = [
            file
            for file in files
            if kept.isdisjoint(names := {file.name, file.name[:ULID_LENGTH]})  # all begin with the alert's id
            and (not closed.isdisjoint(names) or file.time_ns < now_ns - DAY_NS)
        ]  # a file without an alert may belong to an event that is not stored yet
        events_bytes = sum(path.stat().st_size for path in self._run_dir.glob("events.jsonl*"))
        files_bytes = sum(file.size_bytes for file in files)
        return Inventory(
            now_ns,
            files_bytes + events_bytes + live_bytes(connection),
            deletable,
            [file for file in files if file.name in ended],
            (),
            _disk(self._snapshots if self._snapshots.exists() else self._run_dir),
            _disk(self._store_path.parent),
        )

    def _delete_files(self, chosen: DeletionPlan) -> int:
        freed_bytes = 0
        paths = {file: self._paths(file) for file in chosen.files}
        if self._deletions is not None:
            every = (path for own in paths.values() for path in own)
            self._deletions.deleting([path.relative_to(self._run_dir).as_posix() for path in every])
        for file in chosen.files:
            if self._stop.is_set():
                break
            for path in paths[file]:
                path.unlink(missing_ok=True)
            if file.name.endswith(SNAPSHOT):
                self._deleted_names.append(file.name)
            freed_bytes += file.size_bytes
            self._metrics.deleted_bytes.inc(file.size_bytes)
        return freed_bytes

    def _paths(self, file: StoredFile) -> list[Path]:
        for suffix, folder in ((SNAPSHOT, self._snapshots), (SIDECAR, self._sidecars)):
            if file.name.endswith(suffix):
                return [folder / file.name]
        return list(self._clips.glob(f"{file.name}.*"))

    def _forget_snapshots(self, connection: sqlite3.Connection) -> None:
        while self._deleted_names:
            with transaction(connection, self._store_path, is_durable=False):
                connection.executemany(FORGET_SNAPSHOT, ((name,) for name in self._deleted_names[:BATCH_ROWS]))
            del self._deleted_names[:BATCH_ROWS]

    def _delete_rows(self, connection: sqlite3.Connection, chosen: DeletionPlan, delivered: int) -> int:
        """Delete alerts, then tracks and events without an alert.  Return how many rows, about MAX_ROWS at most."""
        deleted = 0
        expired_ns = chosen.expired_ns  # actions are small, and kept however short space is
        if self._deletions is not None and _has_actions_before(connection, expired_ns):
            self._deletions.deleting_events(expired_ns)
        for statement, before_ns in (
            (DELETE_ALERTS, chosen.before_ns),
            (DELETE_TRACKS, chosen.before_ns),
            (DELETE_ACTIONS, expired_ns),
        ):
            count = BATCH_ROWS
            while count == BATCH_ROWS and deleted < MAX_ROWS and not self._stop.is_set():
                with transaction(connection, self._store_path, is_durable=False):
                    count = connection.execute(statement, (before_ns, BATCH_ROWS)).rowcount
                deleted += count
        limits = (chosen.before_ns, delivered, chosen.expired_ns, MAX_ROWS)
        rows = [row for (row,) in connection.execute(DELETABLE_EVENTS, limits)]
        if rows and self._deletions is not None:
            self._deletions.deleting_events(chosen.before_ns)
        while rows and not self._stop.is_set():
            batch, rows = rows[:BATCH_ROWS], rows[BATCH_ROWS:]
            with transaction(connection, self._store_path, is_durable=False):
                connection.executemany(DELETE_EVENTS, ((row,) for row in batch))
            self._metrics.lost.labels("expired").inc(sum(row > delivered for row in batch))
            deleted += len(batch)
        return deleted

    def _shrink(self, connection: sqlite3.Connection) -> int:
        """Return the store's free pages to the disk, and how many bytes that were."""
        before = pages(connection)
        free = before[1]
        while free and not self._stop.is_set():
            connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            left = pages(connection)[1]
            if left >= free:  # no incremental vacuum in this store
                break
            free = left
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        freed_bytes = (before[0] - pages(connection)[0]) * before[2]
        self._metrics.deleted_bytes.inc(max(0, freed_bytes))
        return freed_bytes


def _has_actions_before(connection: sqlite3.Connection, time_ns: int) -> bool:
    (found,) = connection.execute("SELECT EXISTS (SELECT 1 FROM actions WHERE time_utc_ns < ?)", (time_ns,)).fetchone()
    return bool(found)


def _rows(connection: sqlite3.Connection, delivered: int) -> list[Rows]:
    counts: Counter[int] = Counter()
    for statement, values in ((EVENTS_BY_MINUTE, (delivered,)), (TRACKS_BY_MINUTE, ())):
        counts.update(dict(connection.execute(statement, values)))
    (total,) = connection.execute("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM tracks)").fetchone()
    row_bytes = live_bytes(connection) / max(1, total)
    return [Rows(end_ns, round(count * row_bytes)) for end_ns, count in sorted(counts.items())]


def _named(folder: Path, suffix: str) -> Iterator[StoredFile]:
    for name, about in _files(folder):
        if name.endswith(suffix):
            yield StoredFile(name, about.st_blocks * 512, about.st_mtime_ns)


def _clips(folder: Path) -> list[StoredFile]:
    """Return each alert's clip with its record as one file, whose name is the alert's id."""
    clips: dict[str, StoredFile] = {}
    for name, about in _files(folder):
        alert = alert_of(name)
        if alert:
            _, size_bytes, time_ns = clips.get(alert, (alert, 0, 0))
            clips[alert] = StoredFile(alert, size_bytes + about.st_blocks * 512, max(time_ns, about.st_mtime_ns))
    return list(clips.values())


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # a clip that was just completed has another name
                if entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False)


def _disk(folder: Path) -> Disk:
    usage = shutil.disk_usage(folder)
    return Disk(folder.stat().st_dev, usage.free, usage.total)
