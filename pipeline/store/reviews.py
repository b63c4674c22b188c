"""What people say about alerts: seen, or nothing.

In: an alert's id, and the verdict.  Out: it and its time in the alert's row of the store.  Any process may write it,
beside the track worker, which writes all else and leaves these columns alone.
"""

from contextlib import closing
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.store.schema import open_writable, transaction
from pipeline.types import DismissReason

# The first one counts: who saw it later did not see it first.
_ACKNOWLEDGE = "UPDATE alerts SET acknowledged_utc_ns = coalesce(acknowledged_utc_ns, ?) WHERE id = ?"
# The last one counts: it may correct another.  What is dismissed was seen.
_DISMISS = """
UPDATE alerts SET dismissed_utc_ns = ?1, dismissed_as = ?2, acknowledged_utc_ns = coalesce(acknowledged_utc_ns, ?1)
WHERE id = ?3
"""


def acknowledge(path: Path, alert: str, time_utc_ns: int) -> bool:
    """False: there is no such alert.  Raises StoreError."""
    return _write(path, _ACKNOWLEDGE, (time_utc_ns, alert))


def dismiss(path: Path, alert: str, reason: DismissReason, time_utc_ns: int) -> bool:
    """False: there is no such alert.  Raises StoreError."""
    return _write(path, _DISMISS, (time_utc_ns, reason, alert))


def _write(path: Path, statement: str, values: tuple[object, ...]) -> bool:
    if not path.exists():
        raise StoreError(f"{path}: no store is there yet")
    with closing(open_writable(path)) as connection, transaction(connection, path):
        return bool(connection.execute(statement, values).rowcount)
