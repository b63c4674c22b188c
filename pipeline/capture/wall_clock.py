"""Wall-clock times of recordings: ISO 8601 in and out, nanoseconds since 1970 in between.  Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class WallClock:
    """Wall-clock times of a recording that began at `start_utc_ns`; all None if that is unknown."""

    start_utc_ns: int | None = None

    def time_ns(self, pts_s: float) -> int | None:
        """Return the time in ns since 1970 at a presentation time."""
        return None if self.start_utc_ns is None else self.start_utc_ns + round(pts_s * 1e9)

    def text(self, pts_s: float) -> str | None:
        """Return the time at a presentation time as `2026-05-04T03:02:01.000Z`."""
        time_ns = self.time_ns(pts_s)
        if time_ns is None:
            return None
        time = _EPOCH + timedelta(milliseconds=round(time_ns / 1e6))
        return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def utc_ns(text: str) -> int:
    """Return an ISO 8601 time in ns since 1970.  Raise ValueError without a time zone, or before 1970."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None or time < _EPOCH:
        raise ValueError
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000
