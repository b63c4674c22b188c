"""The store's file, and how to open it.

In: a path.  Out: a SQLite connection to a store of this version, or a StoreError that names the file.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DamagedStoreError, StoreError
from pipeline.store.tables import MIGRATIONS, TABLES, VERSION

APPLICATION_ID = 0x6461736E  # "dasn": identifies the file as a store of dasnet
BUSY_TIMEOUT_S = 5.0
WAL_LIMIT_BYTES = 64 << 20

_INCREMENTAL = 2  # of `PRAGMA auto_vacuum`: free pages are returned on request


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into StoreErrors that name the file."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise DamagedStoreError(
                f"{path}: is damaged or not a store ({error}); move it away to start a new one"
            ) from error
        raise StoreError(f"{path}: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path, is_durable: bool = True) -> Iterator[sqlite3.Connection]:
    """Run a write transaction, which is rolled back on any error.

    It takes the write lock first: a read transaction that is upgraded later could not wait for the lock.

    Args:
        connection: of `open_writable`.
        path: of the store.
        is_durable: whether it outlives a power cut once this returns, and before any reader sees it.  Without, a power
            cut may take the last such transactions, but never one that a durable one followed; a crash takes neither.
    """
    with failures(path):
        connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")  # FULL syncs at each commit
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.commit()
        except BaseException:
            if connection.in_transaction:  # SQLite may already have rolled back, as on a full disk
                connection.rollback()
            raise


def open_writable(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Open a store for writing; create it where it is missing, migrate it where it is older.  Raise StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: its folder cannot be created ({error.strerror})") from error
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
    # Checked before WAL is set, which would modify a file that is not a store.
    if _version(connection, path) is None:
        connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")  # has no effect once there are tables
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"{path}: file system does not support WAL; must be on a local disk")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")


def _create_or_migrate(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection, path):
        version = _version(connection, path)  # again: another process may have migrated it meanwhile
        if version is None:
            statements = TABLES
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            statements = "".join(MIGRATIONS[older] for older in range(version, VERSION))
        for statement in statements.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of the file at a path, or None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def side_files(path: Path) -> tuple[Path, Path]:
    """Return the paths of the write-ahead log and its index."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def move_aside(path: Path) -> Path:
    """Rename a damaged store with its write-ahead log, and return its new path.  Raise StoreError."""
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
    """Return the highest row number that an event ever had; 0 where none was stored."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0


def lock_writer(path: Path) -> int:
    """Return a descriptor that holds the writer's lock until it is closed, also by a crash.  Raise StoreError."""
    lock = path.with_name(f"{path.name}.lock")  # not the store itself: closing that would drop SQLite's own locks
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{lock}: cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{path}: is locked by another process; stop it, or configure another `run_dir`") from error
    return descriptor


def live_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the store's pages in use."""
    count, free, size = pages(connection)
    return (count - free) * size


def pages(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Return the number of pages, how many of them are free, and the page size in bytes."""
    names = ("page_count", "freelist_count", "page_size")
    count, free, size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return count, free, size


def enable_incremental_vacuum(connection: sqlite3.Connection, path: Path) -> None:
    """Rewrite a store that was created without incremental vacuum.

    This needs as much free disk space as the store uses.  Raise StoreError.
    """
    with failures(path):
        (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
        if mode != _INCREMENTAL:
            connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
            connection.execute("VACUUM")


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open a store for reading.  Threads may share the connection, one at a time.  Raise StoreError."""
    if not path.exists():
        raise StoreError(f"{path}: no store yet")
    with failures(path):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True)
    try:
        with failures(path):
            version = _version(connection, path)
            if version is None:
                raise StoreError(f"{path}: no store yet")
            if version != VERSION:
                raise StoreError(f"{path}: is a store of version {version}; `dasnet run` migrates it to {VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int | None:
    """Return the version of a store that can be opened or migrated, or None for an empty file.  Raise StoreError."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path}: is a database, but not a store of dasnet; configure another file")
    if not version:
        return None
    if version != VERSION and version not in MIGRATIONS:
        raise StoreError(f"{path}: is a store of version {version}; must be {VERSION} for this dasnet; move it away")
    return int(version)
