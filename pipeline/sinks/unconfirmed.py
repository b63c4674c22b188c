"""Events that a connection took in the last minute.

Protocols without acknowledgements only say that the other host's system has the bytes: a server that hung before it was
killed has not read the last of them.  They are sent again over the next connection, with the same ids.
"""

import time
from collections.abc import Iterable, Sequence

from pipeline.types import Event

CONFIRM_S = 60.0  # a server that hangs for longer loses events; one that does not gets duplicates
MAX_EVENTS = 1000


class Unconfirmed:
    """The events of the last minute of a connection, by their ids."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[float, Event]] = {}

    def sent(self, events: Iterable[Event]) -> None:
        """Remember events; those that are already remembered begin anew."""
        now_s = time.monotonic()
        for event in events:
            self._sent.pop(event.id, None)
            self._sent[event.id] = (now_s, event)
        while len(self._sent) > MAX_EVENTS:
            del self._sent[next(iter(self._sent))]

    def forget(self, events: Iterable[Event]) -> None:
        """Forget events that were refused."""
        for event in events:
            self._sent.pop(event.id, None)

    def is_alive(self) -> None:
        """Forget the events that a connection, which is alive, took CONFIRM_S ago."""
        confirmed_s = time.monotonic() - CONFIRM_S
        for event_id in [event_id for event_id, (sent_s, _) in self._sent.items() if sent_s < confirmed_s]:
            del self._sent[event_id]

    def events(self) -> Sequence[Event]:
        """Return what is to be sent again, in order."""
        return [event for _, event in self._sent.values()]
