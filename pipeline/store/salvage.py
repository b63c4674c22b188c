"""What can be read of a damaged store, copied into the new one.

In: a store that was moved aside.  Out: its rows in the store that replaces it, with their numbers, so that the sinks'
cursors stay right.  Each table is read from its newest row down to the damage, then from its oldest row up to it; rows
whose payload is no JSON are left behind.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.store.schema import open_readonly, transaction

LIMIT_S = 10.0  # events of the present wait meanwhile
BATCH_ROWS = 500
_READABLE = {  # by table, the most important ones first
    "cursors": "1",
    "alerts": "1",
    "events": "json_valid(CAST(payload AS TEXT))",
    "actions": "json_valid(CAST(payload AS TEXT))",
    "tracks": "json_valid(CAST(payload AS TEXT))",
}
# No event may get a number that a cursor has passed.
_CONTINUE = """
UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(row), 0) FROM cursors)) WHERE name = 'events'
"""
_BEGIN = "INSERT INTO sqlite_sequence SELECT 'events', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence)"


def take_over(connection: sqlite3.Connection, path: Path, damaged: Path) -> int:
    """Copy what can be read within LIMIT_S.

    Args:
        connection: of the new store.
        path: of the new store.
        damaged: path of the other one.

    Returns:
        How many rows were copied.

    Raises:
        StoreError: the new store cannot be written.
    """
    deadline_s = time.monotonic() + LIMIT_S
    copied = 0
    with suppress(StoreError), closing(open_readonly(damaged)) as source:
        for table in _READABLE:
            columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
            insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            rows = chain(_rows(source, table, columns, "DESC"), _rows(source, table, columns, "ASC"))
            while time.monotonic() < deadline_s and (batch := list(islice(rows, BATCH_ROWS))):
                with transaction(connection, path, is_durable=False):
                    copied += connection.executemany(insert, batch).rowcount
    with transaction(connection, path):
        connection.execute(_BEGIN)
        connection.execute(_CONTINUE)
    return copied


def _rows(source: sqlite3.Connection, table: str, columns: Sequence[str], order: str) -> Iterator[tuple[Any, ...]]:
    with suppress(sqlite3.DatabaseError):
        selected = f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED WHERE {_READABLE[table]}"
        yield from source.execute(f"{selected} ORDER BY rowid {order}")
