"""The log of events that the inference hosts of a site share, as a sink of each host's own store.

The store is the memory of what is not shared yet, also across restarts.  Another host's events never come back to it.
"""

from collections.abc import Callable, Sequence

from pipeline.cluster.member import Member
from pipeline.errors import ClusterError
from pipeline.sinks.sink import Sink, SinkError
from pipeline.types import Event


class EventLogSink(Sink):
    """Share the events of this host."""

    from_now_on = False
    longest_wait_s = 1.0

    def __init__(self, member: Member) -> None:
        super().__init__("hosts", lambda event: event.host == member.host or (event.host is None and event.is_review))
        self._member = member

    def open(self) -> str | None:
        """Do nothing: the member is connected as soon as it can be."""
        return None

    def send(self, events: Sequence[Event]) -> None:
        """Share events.  Raise SinkError while no server answers, or this host's lease has run out."""
        try:
            self._member.share(events)
        except ClusterError as error:
            raise SinkError(str(error)) from None

    def close(self) -> None:
        """Do nothing: the member is closed last."""


def raised_by(host: str, wants: Callable[[Event], bool]) -> Callable[[Event], bool]:
    """Return what a sink of one of several hosts wants: events of this host, so that each is sent once."""
    return lambda event: event.host in (None, host) and wants(event)
