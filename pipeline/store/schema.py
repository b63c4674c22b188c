"""The store's file: its tables, and how to open them.

In: a path.  Out: a SQLite connection whose file is a store of this version, or a StoreError that names the file.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DamagedStoreError, StoreError

VERSION = 3
APPLICATION_ID = 0x6461736E  # "dasn": no other program's file is taken for a store
BUSY_TIMEOUT_S = 5.0
WAL_LIMIT_BYTES = 64 << 20

# Events are numbered by AUTOINCREMENT, so that a number never comes twice, not even after the newest event was deleted:
# the sinks' cursors are such numbers.
_TABLES = """
CREATE TABLE events (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    camera TEXT NOT NULL,
    time_utc_ns INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX events_by_time ON events (time_utc_ns);
CREATE TABLE tracks (
    ulid TEXT PRIMARY KEY,
    camera TEXT NOT NULL,
    session TEXT NOT NULL,
    id INTEGER NOT NULL,
    label TEXT NOT NULL,
    state TEXT NOT NULL,
    first_seen_utc_ns INTEGER NOT NULL,
    last_seen_utc_ns INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    score REAL NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX tracks_by_time ON tracks (last_seen_utc_ns);
CREATE INDEX tracks_alive ON tracks (state) WHERE state != 'lost';
CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    track TEXT NOT NULL UNIQUE,
    camera TEXT NOT NULL,
    severity TEXT NOT NULL,
    label TEXT NOT NULL,
    evidence TEXT NOT NULL,
    score REAL NOT NULL,
    xyxy TEXT NOT NULL,
    snapshot TEXT,
    opened_utc_ns INTEGER NOT NULL,
    last_seen_utc_ns INTEGER NOT NULL,
    ended_utc_ns INTEGER,
    state TEXT NOT NULL,
    acknowledged_utc_ns INTEGER,
    dismissed_utc_ns INTEGER,
    dismissed_as TEXT
);
CREATE INDEX alerts_by_time ON alerts (opened_utc_ns);
CREATE INDEX alerts_active ON alerts (state) WHERE state = 'active';
CREATE TABLE cursors (sink TEXT PRIMARY KEY, row INTEGER NOT NULL);
"""
_MIGRATIONS = {  # from this version to the next
    1: """
ALTER TABLE alerts ADD COLUMN acknowledged_utc_ns INTEGER;
ALTER TABLE alerts ADD COLUMN dismissed_utc_ns INTEGER;
ALTER TABLE alerts ADD COLUMN dismissed_as TEXT;
""",
    2: "CREATE INDEX IF NOT EXISTS events_by_time ON events (time_utc_ns);",
}
_INCREMENTAL = 2  # of `PRAGMA auto_vacuum`: free pages are given back when asked for


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """What SQLite raises inside becomes a StoreError that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise DamagedStoreError(
                f"{path}: is damaged or no store ({error}); move it away to start a new one"
            ) from error
        raise StoreError(f"{path}: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    """All or nothing.  The write lock is taken first: a read that later turns into a write could not wait for it."""
    with failures(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.commit()
        except BaseException:
            if connection.in_transaction:  # SQLite may have rolled back by itself, as on a full disk
                connection.rollback()
            raise


def open_writable(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Creates folder, file and tables where they are missing, and brings those of an older version up to this one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: its folder cannot be made ({error.strerror})") from error
    with failures(path):
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        with failures(path):
            _prepare(connection, path)
            if _version(connection, path) != VERSION:
                _create_or_migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # Read before WAL is set, which would change a file that is not ours.
    if _version(connection, path) is None:
        connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")  # has no effect once there are tables
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"{path}: its file system does not allow WAL; use a local disk, not a network one")
    # NORMAL: a crash of the process loses nothing, a power cut may lose the last moments, but never breaks the file.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")


def _create_or_migrate(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection, path):
        version = _version(connection, path)  # again: another process may have been faster
        if version is None:
            statements = _TABLES
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            statements = "".join(_MIGRATIONS[older] for older in range(version, VERSION))
        for statement in statements.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def identity(path: Path) -> tuple[int, int] | None:
    """Which file the name stands for now; None: none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def side_files(path: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def move_aside(path: Path) -> Path:
    """Rename a damaged store, with its write-ahead log, and return its new name.  Raises StoreError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    try:
        path.rename(aside)
        for old, new in zip(side_files(path), side_files(aside), strict=True):
            if old.exists():
                old.rename(new)
    except OSError as error:
        raise StoreError(f"{path}: is damaged, and cannot be moved aside ({error.strerror})") from error
    return aside


def sequence(connection: sqlite3.Connection) -> int:
    """How far the events have been numbered."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0


def claim(path: Path) -> int:
    """A descriptor that holds the writer's place until it is closed, by whatever death."""
    lock = path.with_name(f"{path.name}.lock")  # not the store itself: closing that would drop SQLite's own locks
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{lock}: cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{path}: another process writes this store; stop it, or name another `run_dir`") from error
    return descriptor


def live_bytes(connection: sqlite3.Connection) -> int:
    """Of the store's pages that are in use."""
    count, free, size = pages(connection)
    return (count - free) * size


def pages(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """How many, how many of them free, and their size."""
    names = ("page_count", "freelist_count", "page_size")
    count, free, size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return count, free, size


def make_shrinkable(connection: sqlite3.Connection, path: Path) -> None:
    """Rewrite a store that was made without incremental vacuum.  Needs as much free space as the store is large."""
    with failures(path):
        (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
        if mode != _INCREMENTAL:
            connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
            connection.execute("VACUUM")


def open_readonly(path: Path) -> sqlite3.Connection:
    """May be used by several threads, one at a time."""
    if not path.exists():
        raise StoreError(f"{path}: no store is there yet")
    with failures(path):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True)
    try:
        with failures(path):
            version = _version(connection, path)
            if version is None:
                raise StoreError(f"{path}: no store is there yet")
            if version != VERSION:
                raise StoreError(f"{path}: is a store of version {version}; `dasnet run` brings it up to {VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int | None:
    """This or an older one that can be brought up to it.  None: an empty file."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path}: is a database, but not a store of dasnet; name another file")
    if not version:
        return None
    if version != VERSION and version not in _MIGRATIONS:
        raise StoreError(f"{path}: is a store of version {version}; this dasnet reads version {VERSION}; move it away")
    return int(version)
