"""Writes of an owner to the log of events, each after the newest of its camera that it knows: see `jetstream`."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import structlog

from pipeline.cluster.connection import all_of
from pipeline.cluster.jetstream import JetStream
from pipeline.cluster.metrics import ClusterMetrics
from pipeline.errors import ClusterError
from pipeline.types import Event

POLL_S = 0.02


@dataclass
class Claim:
    """A camera that this host owns, and may write for.

    Attributes:
        token: the fencing token.
        sequence: of the camera's newest message, which this host wrote.
        tracks_revision: of its tracks.
        unshared: events that were raised under this token and are not in the log yet.
        writing_tracks: held by who writes its tracks.
    """

    token: int
    sequence: int
    tracks_revision: int
    unshared: int = 0
    writing_tracks: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def all_shared(self) -> None:
        """Wait until all events are in the log."""
        while self.unshared:
            await asyncio.sleep(POLL_S)


async def claim(stream: JetStream, camera: str, host: str, token: int) -> int | None:
    """Refuse all earlier owners from now on; return the claim's sequence, None where a later owner was first.

    Raise ClusterError.
    """
    while True:
        newest = await stream.newest(camera)
        if newest.token > token:
            return None
        if newest.token == token and not newest.events:  # an answer was lost
            return newest.sequence
        sequence = await stream.write_events(camera, (), host, token, newest.sequence)
        if sequence is not None:
            return sequence


class Publisher:
    """Share events, in the order of each camera."""

    def __init__(self, host: str, claims: dict[str, Claim], metrics: ClusterMetrics) -> None:
        self._host = host
        self._claims = claims
        self._metrics = metrics
        self._told: set[str] = set()
        self._done: set[str] = set()  # ids of events of a share that failed which need not be written again
        self._log = structlog.get_logger()

    async def share(self, stream: JetStream, events: Sequence[Event], awaited: Collection[str]) -> None:
        """Append events to the log; those of a token that is over are counted, and stay where they are.

        Args:
            stream: the connection.
            events: of this host.
            awaited: the cameras that this host holds or is about to, claimed or not yet.

        Raises:
            ClusterError: Some events could not be written yet; those that were are left out when it is tried again.
        """
        by_camera: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.id in self._done:
                continue
            if event.is_review:
                await stream.write_review(event, self._host)
                self._done.add(event.id)
                continue
            by_camera[event.camera].append(event)
        await all_of(self._share(stream, camera, own, awaited) for camera, own in by_camera.items())
        self._done.clear()

    async def _share(self, stream: JetStream, camera: str, events: list[Event], awaited: Collection[str]) -> None:
        claimed = self._claims.get(camera)
        if claimed is None and camera in awaited:
            raise ClusterError(f"camera {camera!r}: not claimed yet")
        current = [event for event in events if claimed is not None and event.token in (None, claimed.token)]
        self._fence(camera, [event for event in events if event not in current])
        if claimed is not None and current:
            await self._write(stream, camera, current, claimed)

    async def _write(self, stream: JetStream, camera: str, events: list[Event], claimed: Claim) -> None:
        left = events
        while left:
            sequence = await stream.write_events(camera, left, self._host, claimed.token, claimed.sequence)
            if sequence is not None:
                claimed.sequence = sequence
                self._finish(left, claimed)
                return
            newest = await stream.newest(camera)
            if newest.token > claimed.token:
                self._finish(left, claimed)
                self._fence(camera, left)
                return
            if newest.token < claimed.token:
                await self._claim_again(stream, camera, claimed)
                continue
            # An answer was lost: the newest message is this host's, and holds the first of these events.
            known = {event.id for event in newest.events}
            self._finish([event for event in left if event.id in known], claimed)
            left = [event for event in left if event.id not in known]
            claimed.sequence = newest.sequence

    async def _claim_again(self, stream: JetStream, camera: str, claimed: Claim) -> None:
        """Claim a log that holds nothing of this host any more: it was all too old, or deleted.  Raise ClusterError."""
        sequence = await claim(stream, camera, self._host, claimed.token)
        if sequence is None or sequence == claimed.sequence:
            raise ClusterError(f"camera {camera!r}: its log is not claimed yet")
        claimed.sequence = sequence

    def _finish(self, events: Sequence[Event], claimed: Claim) -> None:
        self._done |= {event.id for event in events}
        claimed.unshared = max(0, claimed.unshared - len(events))

    def _fence(self, camera: str, events: Sequence[Event]) -> None:
        if events:
            self._done |= {event.id for event in events}
            self._metrics.fenced.labels(camera).inc(len(events))
            if camera not in self._told:
                self._told.add(camera)
                self._log.warning("events not shared: another host owns the camera", camera=camera, events=len(events))
