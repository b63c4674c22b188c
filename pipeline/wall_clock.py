"""Wall-clock times of recordings: ISO 8601 in and out, nanoseconds since 1970 in between."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_ns(text: str) -> int:
    """Raises ValueError where it is no ISO 8601 time with a time zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("has no time zone")
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


def utc_text(time_ns: int) -> str:
    """`2026-05-04T03:02:01.000Z`"""
    time = _EPOCH + timedelta(milliseconds=round(time_ns / 1e6))
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
