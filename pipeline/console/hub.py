"""Server-sent events for many browsers, none of which can block another.

Takes the newest value of each topic as JSON, and streams it to every browser.  A slow browser gets only the newest
value of each topic; older ones are dropped.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

MAX_CLIENTS = 64
RETRY = b"retry: 1000\n\n"  # reconnection delay of browsers, in ms


class LatestMessages:
    """The pending messages of one browser: at most one per topic, in order of arrival of the topics."""

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: dict[str, bytes] = {}
        self._filled = asyncio.Event()

    def put(self, topic: str, message: bytes) -> None:
        """Set the newest message of a topic."""
        self.dropped += topic in self._waiting
        self._waiting[topic] = message
        self._filled.set()

    async def take(self) -> bytes:
        """Wait for messages, and return all pending ones; empty when the hub has closed."""
        await self._filled.wait()
        self._filled.clear()
        messages, self._waiting = self._waiting, {}
        return b"".join(messages.values())

    def close(self) -> None:
        """Wake the reader with an empty result."""
        self._waiting.clear()
        self._filled.set()


class Hub:
    """Publishes messages to all browsers; to be used in the event loop's thread only."""

    def __init__(self) -> None:
        self._newest: dict[str, bytes] = {}
        self._clients: set[LatestMessages] = set()
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether no further browser can be served."""
        return self._closed or len(self._clients) >= MAX_CLIENTS

    def publish(self, event: str, data: bytes, key: str = "") -> None:
        """Publish a message; `data` is one line of JSON.  The topic is the event with a key, such as the camera."""
        topic, message = f"{event} {key}", b"event: %b\ndata: %b\n\n" % (event.encode(), data)
        self._newest[topic] = message
        for client in self._clients:
            client.put(topic, message)

    async def stream(self, is_wanted: Callable[[], bool] = lambda: True) -> AsyncIterator[bytes]:
        """Yield the newest message of every topic, then those published later, at least one per second.

        The stream ends when `is_wanted` returns False, as when the browser's session has ended.
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
        """End all streams."""
        self._closed = True
        for client in self._clients:
            client.close()
