"""Server-sent events, one for each stored event; a client that was cut off goes on after the last one that it has.

They are read from the store: none is lost or doubled, however slow the client is, and nothing is queued for it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec

from pipeline.config.users import User
from pipeline.console.site import Site
from pipeline.console.view import shown_event
from pipeline.errors import StoreError
from pipeline.store.history_reader import EventFilter, HistoryReader
from pipeline.store.reader import StoredEvent
from pipeline.types import Event

PAGE = 200  # events per query
WAIT_S = 1.0  # for new events, before it is checked whether the session is still open
PING_S = 10.0
RETRY = b"retry: 1000\n\n"
PING = b": ping\n\n"
RESET = b"event: reset\ndata: {}\n\n"


class Start(NamedTuple):
    """Where a stream begins: after this row; `is_reset`: the event that was named is not stored any more."""

    row: int
    is_reset: bool = False


def start_of(reader: HistoryReader, last_event: str | None) -> Start:
    """Return where to go on after an event: at the oldest that is stored if it is not there; None: with new ones."""
    if last_event is None:
        return Start(reader.last_row())
    row = reader.row_of(last_event)
    return Start(0, is_reset=True) if row is None else Start(row)


async def stream_events(
    site: Site, user: User, wanted: EventFilter, start: Start, is_wanted: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yield events that are stored after `start`, until the session ends or the console stops."""
    yield RETRY + (RESET if start.is_reset else b"")
    row, silent_s = start.row, 0.0
    while is_wanted() and not site.hub.is_closed:
        more = site.stored_something
        try:
            found = await asyncio.to_thread(site.stored, partial(_after, wanted, row))
        except StoreError:  # it may be back in a moment
            found = []
        if found:
            row, silent_s = found[-1].row, 0.0
            yield b"".join(_message(each.event, user) for each in found)
            if len(found) == PAGE:
                continue
        with suppress(TimeoutError):
            await asyncio.wait_for(more.wait(), WAIT_S)
        silent_s += WAIT_S
        if silent_s >= PING_S:
            silent_s = 0.0
            yield PING


def _after(wanted: EventFilter, row: int, reader: HistoryReader) -> list[StoredEvent]:
    return reader.events_after(wanted, PAGE, row)


def _message(event: Event, user: User) -> bytes:
    shown = shown_event(event, user)
    return b"id: %b\nevent: event\ndata: %b\n\n" % (shown.id.encode(), msgspec.json.encode(shown))
