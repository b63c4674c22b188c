"""The base of sinks, the destinations to which events are delivered."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from pipeline.config.models import Config
from pipeline.errors import DasnetError
from pipeline.store.reader import StoreReader
from pipeline.types import Event


class SinkError(DasnetError):
    """A sink did not accept the events; the outbox retries."""


class RefusedError(SinkError):
    """The destination refused the events themselves: after several tries each goes to the dead letters."""


def _every(_: Event) -> bool:
    return True


class Sink(ABC):
    """A destination of events, called by one thread of the outbox.

    After any failure the outbox calls `close`, waits, calls `open` and sends the same events again.

    Attributes:
        name: unique, and the same at the next start: the key of the sink's cursor.  Holds no secret.
        wants: whether an event is sent; others count as delivered.
        batch_size: events per call of `send`, at most.
        poll_s: longest time between two calls of `idle`.
        from_now_on: whether a new sink begins with the events that are stored after its first start.
        expires_s: age from which events are not sent any more, but counted.
        longest_wait_s: longest time between two tries of a sink that fails.
    """

    batch_size = 200
    poll_s = 1.0
    from_now_on = True
    expires_s = math.inf
    longest_wait_s = 60.0

    def __init__(self, name: str, wants: Callable[[Event], bool] = _every) -> None:
        self.name = name
        self.wants = wants

    @property
    def label(self) -> str:
        """Return the sink in metrics."""
        return self.name.partition(":")[0]

    @abstractmethod
    def open(self) -> str | None:
        """Connect.  Return the id of the newest event that the destination holds, or None where that is unknown."""

    @abstractmethod
    def send(self, events: Sequence[Event]) -> None:
        """Deliver all events in order.  Returning acknowledges them: they are not sent again."""

    def idle(self, reader: StoreReader) -> None:  # noqa: B027  (most have nothing to do)
        """Do what is due while no event waits, such as reading replies.  Raise SinkError."""

    def watch(self, config: Config) -> None:  # noqa: B027  (most name no cameras)
        """Take the cameras of a configuration that was reloaded.  Called by another thread; does not block."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect.  May be called at any time, more than once."""
