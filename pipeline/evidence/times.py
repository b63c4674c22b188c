"""Times as people read them.  Pure."""

from datetime import UTC, datetime


def utc(time_utc_ns: int) -> str:
    """Return a time in ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(time_utc_ns // 1_000_000 / 1e3, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
