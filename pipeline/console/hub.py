"""Server-sent events for any number of browsers, none of which can hold up another.

In: the newest value of each topic, already JSON.  Out: for each browser a stream of them.  A browser that is slow finds
the newest value of each topic when it comes back: what was overwritten meanwhile is dropped, nothing queues up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

MAX_CLIENTS = 64
RETRY = b"retry: 1000\n\n"  # ms after which a browser connects again


class LatestMessages:
    """One browser's: at most one message a topic, in the order in which the topics first waited."""

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: dict[str, bytes] = {}
        self._filled = asyncio.Event()

    def put(self, topic: str, message: bytes) -> None:
        self.dropped += topic in self._waiting
        self._waiting[topic] = message
        self._filled.set()

    async def take(self) -> bytes:
        """All that waits, as soon as something does.  b"" when the hub has closed."""
        await self._filled.wait()
        self._filled.clear()
        messages, self._waiting = self._waiting, {}
        return b"".join(messages.values())

    def close(self) -> None:
        self._waiting.clear()
        self._filled.set()


class Hub:
    """Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._newest: dict[str, bytes] = {}
        self._clients: set[LatestMessages] = set()
        self._closed = False

    @property
    def full(self) -> bool:
        return self._closed or len(self._clients) >= MAX_CLIENTS

    def publish(self, event: str, data: bytes, key: str = "") -> None:
        """`data` is JSON on one line.  A topic is an event's name and a key, as the camera is for frames."""
        topic, message = f"{event} {key}", b"event: %b\ndata: %b\n\n" % (event.encode(), data)
        self._newest[topic] = message
        for client in self._clients:
            client.put(topic, message)

    async def stream(self, is_wanted: Callable[[], bool] = lambda: True) -> AsyncIterator[bytes]:
        """Yield the newest of every topic, then what is published, which is something every second.

        `is_wanted` is asked before each: the session that asked may have ended.
        """
        client = LatestMessages()
        for topic, message in self._newest.items():
            client.put(topic, message)
        self._clients.add(client)
        try:
            yield RETRY
            while not self._closed and (messages := await client.take()) and is_wanted():
                yield messages
        finally:
            self._clients.discard(client)

    def close(self) -> None:
        """All streams end."""
        self._closed = True
        for client in self._clients:
            client.close()
