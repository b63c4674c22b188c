"""Server-sent events for many browsers, none of which can block another.

Takes the newest value of each topic as JSON, and streams it to every browser whose user may see it.  A slow browser
gets only the newest value of each topic; older ones are dropped.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Set

Cameras = frozenset[str] | None  # that a user sees; None: all

MAX_CLIENTS = 64
RETRY = b"retry: 1000\n\n"  # reconnection delay of browsers, in ms


Audience = Callable[[Cameras], bool]  # whether a message is for the users who see these cameras


class LatestMessages:
    """The pending messages of one browser: at most one per topic, in order of arrival of the topics."""

    def __init__(self, cameras: Cameras = None) -> None:
        self.cameras = cameras
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
        self._newest: dict[str, tuple[bytes, Audience]] = {}
        self._clients: set[LatestMessages] = set()
        self.is_closed = False

    @property
    def full(self) -> bool:
        """Whether no further browser can be served."""
        return self.is_closed or len(self._clients) >= MAX_CLIENTS

    @property
    def audiences(self) -> Set[Cameras]:
        """The cameras that the users of the connected browsers see."""
        return {client.cameras for client in self._clients}

    def publish_frame(self, data: bytes, camera: str) -> None:
        """Publish a frame of a camera to those who see it."""
        self._publish("frame", data, camera, lambda cameras: cameras is None or camera in cameras)

    def publish(self, event: str, data: bytes, cameras: Cameras = None) -> None:
        """Publish a message to those who see exactly these cameras; `data` is one line of JSON."""
        key = "" if cameras is None else repr(sorted(cameras))
        self._publish(event, data, key, lambda own: own == cameras)

    def _publish(self, event: str, data: bytes, key: str, to: Audience) -> None:
        topic, message = f"{event} {key}", b"event: %b\ndata: %b\n\n" % (event.encode(), data)
        self._newest[topic] = message, to
        for client in self._clients:
            if to(client.cameras):
                client.put(topic, message)

    def retain(self, audiences: Set[Cameras]) -> None:
        """Forget what was published to others."""
        self._newest = {
            topic: (message, to) for topic, (message, to) in self._newest.items() if any(map(to, audiences))
        }

    async def stream(
        self, is_wanted: Callable[[], bool] = lambda: True, cameras: Cameras = None
    ) -> AsyncIterator[bytes]:
        """Yield the newest message of every topic, then those published later, at least one per second.

        The stream ends when `is_wanted` returns False, as when the browser's session has ended.
        """
        client = LatestMessages(cameras)
        for topic, (message, to) in self._newest.items():
            if to(cameras):
                client.put(topic, message)
        self._clients.add(client)
        try:
            yield RETRY
            while not self.is_closed and (messages := await client.take()) and is_wanted():
                yield messages
        finally:
            self._clients.discard(client)

    def close(self) -> None:
        """End all streams."""
        self.is_closed = True
        for client in self._clients:
            client.close()
