"""Finds damage to the store's file where nothing reads.

In: the path of a store.  Out: a DamagedStoreError.  SQLite checks the structure of every page, but has no checksum of
what is in them.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import structlog

from pipeline.errors import DamagedStoreError, StoreError
from pipeline.store.schema import failures, identity, open_readonly

PERIOD_S = 3600.0
STOP_S = 1.0


class IntegrityCheck:
    """Check the store at once, and then every PERIOD_S, in a thread from entry to exit.

    Args:
        path: of the store.
        on_damage: called, in the thread, with each damage.
    """

    def __init__(self, path: Path, on_damage: Callable[[DamagedStoreError], None]) -> None:
        self._path = path
        self._on_damage = on_damage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="integrity", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        while True:
            try:
                check(self._path)
            except DamagedStoreError as error:
                self._on_damage(error)
            except StoreError as error:  # none yet, or being written by somebody else
                structlog.get_logger().debug("store not checked", reason=str(error))
            if self._stop.wait(PERIOD_S):
                return


def check(path: Path) -> None:
    """Read every page of a store.  Raise DamagedStoreError, or StoreError where there is none.

    Writers are not blocked.  What happened to a file that was replaced meanwhile is no damage.
    """
    file = identity(path)
    try:
        with failures(path), closing(open_readonly(path)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise DamagedStoreError(f"{path}: is damaged ({found.splitlines()[-1]})")
    except DamagedStoreError:
        if identity(path) == file:
            raise
