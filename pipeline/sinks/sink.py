"""The interface of sinks, the destinations to which events are delivered."""

from collections.abc import Sequence
from typing import Protocol

from pipeline.errors import DasnetError
from pipeline.types import Event


class SinkError(DasnetError):
    """A sink did not accept the events; the outbox retries."""


class Sink(Protocol):
    """A destination of events, called by one thread of the outbox.

    After any failure the outbox calls `close`, waits, calls `open` and sends the same events again.
    """

    @property
    def name(self) -> str:
        """Return the sink's unique name: the key of its cursor, so the same at the next start."""

    def open(self) -> str | None:
        """Connect.  Return the id of the newest event that the destination holds, or None where that is unknown."""

    def send(self, events: Sequence[Event]) -> None:
        """Deliver all events in order.  Returning acknowledges them: they are not sent again."""

    def close(self) -> None:
        """Disconnect.  May be called at any time, more than once."""
