"""What hosts share, in memory: `pipeline.cluster.jetstream.JetStream` without a server, whose requests fail at will."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.cluster.jetstream import Newest, Tracks
from pipeline.cluster.leases import CameraRecord, HostRecord, View
from pipeline.errors import ClusterError
from pipeline.types import Event


class Written(NamedTuple):
    sequence: int
    token: int
    events: list[Event]


class MemoryStream:
    """`failing`: names of requests that fail; `unanswered`: that fail when done; `held`: that wait for an event."""

    place, is_connected = "memory", True

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.unanswered: set[str] = set()
        self.held: dict[str, asyncio.Event] = {}
        self.asked: defaultdict[str, int] = defaultdict(int)  # how often, by request
        self.log: dict[str, list[Written]] = defaultdict(list)
        self.saved: dict[str, tuple[bytes, int]] = {}
        self.reviews: list[str] = []
        self._hosts: dict[str, HostRecord] = {}
        self._cameras: dict[str, CameraRecord] = {}
        self._revision = 0

    async def _ask(self, *names: str) -> None:
        for name in names:
            self.asked[name] += 1
            if name in self.held:
                await self.held[name].wait()
        await asyncio.sleep(0)
        if self.failing & set(names):
            raise ClusterError("no answer")

    def _answer(self, *names: str) -> None:
        if self.unanswered & set(names):
            raise ClusterError("no answer")

    def _next(self) -> int:
        self._revision += 1
        return self._revision

    async def view(self) -> View:
        await self._ask("view")
        return View(dict(self._hosts), dict(self._cameras))

    async def write_host(self, host: str, session: str, version: str, revision: int) -> int | None:
        await self._ask("write_host")
        if revision != (self._hosts[host].revision if host in self._hosts else 0):
            return None
        self._hosts[host] = HostRecord(self._next(), session, version)
        return self._revision

    async def write_camera(self, camera: str, host: str, session: str, revision: int) -> int | None:
        await self._ask("write_camera")
        if revision != (self._cameras[camera].revision if camera in self._cameras else 0):
            return None
        self._cameras[camera] = CameraRecord(self._next(), host, session)
        return self._revision

    async def write_tracks(self, camera: str, data: bytes, revision: int) -> int | None:
        await self._ask("write_tracks")
        if revision != self.saved.get(camera, (b"", 0))[1]:
            return None
        self.saved[camera] = data, self._next()
        self._answer("write_tracks")
        return self._revision

    async def tracks(self, camera: str) -> Tracks:
        await self._ask("tracks", f"tracks {camera}")
        return Tracks(*self.saved.get(camera, (b"", 0)), 0.0)

    async def newest(self, camera: str) -> Newest:
        await self._ask("newest")
        return Newest(*self.log[camera][-1]) if self.log[camera] else Newest(0, 0, [])

    async def write_events(self, camera: str, events: Sequence[Event], host: str, token: int, after: int) -> int | None:
        await self._ask("write_events", f"write_events {camera}")
        if after != (self.log[camera][-1].sequence if self.log[camera] else 0):
            return None
        self.log[camera].append(Written(self._next(), token, list(events)))
        self._answer("write_events", f"write_events {camera}")
        return self._revision

    async def write_review(self, review: Event, host: str) -> None:
        await self._ask("write_review")
        self.reviews.append(review.id)

    def ids(self, camera: str) -> list[str]:
        return [event.id for written in self.log[camera] for event in written.events]
