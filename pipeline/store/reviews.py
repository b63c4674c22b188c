"""Operators' reviews of alerts: acknowledged or dismissed.

In: an alert's id and the review.  Out: the review and its time, in the alert's row of the store.  Any process may write
these columns; the track worker, which writes everything else, never changes them.
"""

from contextlib import closing
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.store.schema import open_writable, transaction
from pipeline.types import DismissReason

# The first acknowledgement counts.
_ACKNOWLEDGE = "UPDATE alerts SET acknowledged_utc_ns = coalesce(acknowledged_utc_ns, ?) WHERE id = ?"
# The last dismissal counts, as a correction.  A dismissed alert is also acknowledged.
_DISMISS = """
UPDATE alerts SET dismissed_utc_ns = ?1, dismissed_as = ?2, acknowledged_utc_ns = coalesce(acknowledged_utc_ns, ?1)
WHERE id = ?3
"""


def acknowledge(path: Path, alert: str, time_utc_ns: int) -> bool:
    """Acknowledge an alert.  Return False where there is no such alert; raise StoreError."""
    return _write(path, _ACKNOWLEDGE, (time_utc_ns, alert))


def dismiss(path: Path, alert: str, reason: DismissReason, time_utc_ns: int) -> bool:
    """Dismiss an alert.  Return False where there is no such alert; raise StoreError."""
    return _write(path, _DISMISS, (time_utc_ns, reason, alert))


def _write(path: Path, statement: str, values: tuple[object, ...]) -> bool:
    if not path.exists():
        raise StoreError(f"{path}: no store yet")
    with closing(open_writable(path)) as connection, transaction(connection, path):
        return bool(connection.execute(statement, values).rowcount)
