"""When a rule applies: days of the week and times of day in a time zone, or one span of time.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60


@dataclass(frozen=True)
class Weekly:
    """The same hours on several days of the week.

    Attributes:
        days: 0 is Monday.
        first_min: beginning, minutes after midnight.
        end_min: end, exclusive; not after the beginning: on the next day.
        zone: time zone of both.
    """

    days: frozenset[int]
    first_min: int
    end_min: int
    zone: tzinfo

    def holds(self, utc_ns: int) -> bool:
        """Return whether a time is within these hours; those after midnight belong to the day on which they begin."""
        local = datetime.fromtimestamp(utc_ns / 1e9, self.zone)
        minute = local.hour * 60 + local.minute
        today = local.weekday()
        if self.first_min < self.end_min:
            return today in self.days and self.first_min <= minute < self.end_min
        yesterday = (local.date() - timedelta(days=1)).weekday()
        return (today in self.days and minute >= self.first_min) or (yesterday in self.days and minute < self.end_min)


@dataclass(frozen=True)
class Span:
    """The time from one moment to another, exclusive; ns since 1970."""

    first_utc_ns: int
    end_utc_ns: int

    def holds(self, utc_ns: int) -> bool:
        """Return whether a time is in it."""
        return self.first_utc_ns <= utc_ns < self.end_utc_ns


@dataclass(frozen=True)
class Period:
    """Several conditions on the time, which must all hold."""

    parts: Sequence[Weekly | Span]

    def holds(self, utc_ns: int) -> bool:
        """Return whether all of them hold."""
        return all(part.holds(utc_ns) for part in self.parts)
