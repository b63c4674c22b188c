"""Events and actions as the store holds them, byte by byte: what the evidence log has hashes of.

In: a store's file.  Out: their JSON.  For one thread; never blocks the writer.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.store.schema import failures, open_readonly

_OF_EVENT = "SELECT CAST(payload AS BLOB) FROM events WHERE id = ?"
# The events of an alert begin with it: the index by time then leaves few to read.
_OF_ALERT = """
SELECT CAST(payload AS BLOB) FROM events WHERE alert = ?1
AND time_utc_ns >= coalesce((SELECT opened_utc_ns FROM alerts WHERE id = ?1), 0) ORDER BY row
"""
# Retention deletes the oldest ones first: where that one is gone, all that are stored are newer.
_ACTIONS_AFTER = """
SELECT CAST(payload AS BLOB) FROM actions
WHERE row > coalesce((SELECT row FROM actions WHERE id = ?), 0) ORDER BY row LIMIT ?
"""
_ALL_ACTIONS = "SELECT id, CAST(payload AS BLOB) FROM actions ORDER BY row"
_ALL = """
SELECT id, kind, time_utc_ns, CAST(payload AS BLOB) FROM events
WHERE kind GLOB 'alert.*' OR kind GLOB 'camera.*' ORDER BY row
"""


class PayloadReader:
    """Read payloads.  Raise StoreError where the store cannot be read, as all its methods do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_readonly(path)

    def of_events(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the payloads of the events that are stored, by id."""
        with failures(self._path):
            rows = ((each, self._connection.execute(_OF_EVENT, (each,)).fetchone()) for each in ids)
            return {each: row[0] for each, row in rows if row is not None}

    def of_alert(self, alert: str) -> list[bytes]:
        """Return the payloads of an alert's events, in their order."""
        with failures(self._path):
            return [payload for (payload,) in self._connection.execute(_OF_ALERT, (alert,))]

    def actions_after(self, action: str | None, limit: int) -> list[bytes]:
        """Return the payloads of the first actions after one, or of the first ones."""
        with failures(self._path):
            return [payload for (payload,) in self._connection.execute(_ACTIONS_AFTER, (action, limit))]

    def all_actions(self) -> Iterator[tuple[str, bytes]]:
        """Yield id and payload of all actions."""
        with failures(self._path):
            yield from self._connection.execute(_ALL_ACTIONS)

    def all(self) -> Iterator[tuple[str, str, int, bytes]]:
        """Yield id, kind, time (UTC, ns) and payload of all events of alerts and cameras."""
        with failures(self._path):
            yield from self._connection.execute(_ALL)

    def close(self) -> None:
        """Close the store."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
