"""What people did: the audit log.

In: who did what, from where, and on which alert.  Out: rows of the table `actions`, in the order in which they were
done; the evidence log has a leaf for each.  An action on an alert is stored in the transaction that it changes the
store in; all others by `record`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec
from ulid import ULID

from pipeline.errors import StoreError
from pipeline.store.schema import open_writable, transaction

_INSERT = "INSERT INTO actions (id, time_utc_ns, user, kind, alert, payload) VALUES (?, ?, ?, ?, ?, ?)"


class ActionKind(StrEnum):
    """Kind of an action."""

    LOG_IN = "log_in"
    LOG_IN_FAILED = "log_in_failed"  # wrong password
    LOG_OUT = "log_out"
    ACKNOWLEDGE = "acknowledge"
    REVIEW = "review"  # with a verdict, or without one: it was withdrawn
    REOPEN = "reopen"
    PIN = "pin"
    UNPIN = "unpin"
    ARM = "arm"
    DISARM = "disarm"
    CONFIGURE = "configure"  # the configuration was changed
    TRIAL = "trial"  # a file was processed at Try it


class Actor(NamedTuple):
    """Who does something: a user's name, and the address from which the request comes; empty: on this host."""

    user: str
    address: str = ""


ON_HOST = Actor("")  # whoever runs a program on this host


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that a person did."""

    id: str  # ULID
    time_utc_ns: int
    user: str
    address: str
    kind: ActionKind
    alert: str | None = None
    camera: str | None = None  # of the alert, or whose zones were changed
    detail: str = ""  # such as the verdict


def record(
    path: Path, by: Actor, kind: ActionKind, time_utc_ns: int, *, camera: str | None = None, detail: str = ""
) -> None:
    """Store an action that is on no alert.  Raise StoreError."""
    with writing(path) as connection:
        insert(connection, by, kind, time_utc_ns, camera=camera, detail=detail)


def insert(
    connection: sqlite3.Connection,
    by: Actor,
    kind: ActionKind,
    time_utc_ns: int,
    *,
    alert: str | None = None,
    camera: str | None = None,
    detail: str = "",
) -> None:
    """Store an action within a transaction."""
    action = Action(str(ULID()), time_utc_ns, by.user, by.address, kind, alert, camera, detail)
    row = (action.id, time_utc_ns, action.user, kind, alert, msgspec.json.encode(action))
    connection.execute(_INSERT, row)


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Run a transaction on a store that exists.  Raise StoreError."""
    if not path.exists():
        raise StoreError(f"{path}: no store yet")
    with closing(open_writable(path)) as connection, transaction(connection, path):
        yield connection
