"""What is published reaches those who may see it, and no others."""

import asyncio

from pipeline.console.hub import RETRY, Cameras, Hub

NORTH = frozenset({"north"})


def data(messages: bytes) -> list[bytes]:
    return [line for line in messages.split(b"\n") if line.startswith(b"data")]


def test_frames_and_lists_reach_those_who_see_their_cameras_only() -> None:
    async def received(hub: Hub, cameras: Cameras) -> bytes:
        stream = hub.stream(cameras=cameras)
        assert await anext(stream) == RETRY
        messages = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return messages

    async def run() -> None:
        hub = Hub()
        hub.publish_frame(b"1", "north")
        hub.publish_frame(b"2", "south")
        hub.publish("alerts", b"3")
        hub.publish("alerts", b"4", NORTH)
        everything, own = await received(hub, None), await received(hub, NORTH)
        assert data(everything) == [b"data: 1", b"data: 2", b"data: 3"]
        assert data(own) == [b"data: 1", b"data: 4"]
        hub.retain({None})
        hub.publish_frame(b"5", "north")
        assert await received(hub, NORTH) == b"event: frame\ndata: 5\n\n"

    asyncio.run(run())
