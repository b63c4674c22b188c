"""A camera's own video for a browser: asks its capture worker for parts, and streams them as one response."""

import asyncio
from collections.abc import AsyncIterator, Callable, Container

import zmq
import zmq.asyncio
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from pipeline.errors import WireError
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.video import MAX_PART_BYTES, NEXT, START_TIMEOUT_S, VIEWER_TIMEOUT_S, VideoPart, decode_part

MAX_STREAMS = 64


class LiveVideo:
    """Streams of all browsers."""

    def __init__(self) -> None:
        self._streams = 0

    async def response(self, camera: str, known: Container[str], is_wanted: Callable[[], bool]) -> Response:
        """Return a response that streams until the video or the wish for it ends.

        Raise HTTPException where there is no video that a browser plays: images then have to do.
        """
        if camera not in known:
            raise HTTPException(404, f"no camera {camera[:100]!r}")
        if self._streams >= MAX_STREAMS:
            raise HTTPException(503, "too many videos are watched", {"retry-after": "5"})
        socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_PART_BYTES)
        socket.setsockopt(zmq.RCVHWM, 2)
        socket.connect(Endpoints.video(camera))  # in the run folder, the working directory
        self._streams += 1
        try:
            part, first = await _next(socket, START_TIMEOUT_S)
            if part.ended or not part.mime:
                raise HTTPException(404, f"no video: {part.ended or 'its codec is unknown'}")
        except BaseException:
            self._close(socket)
            raise
        headers = {"x-session": part.session, "x-zero-pts-s": repr(part.zero_pts_s)}
        return StreamingResponse(self._parts(socket, first, is_wanted), media_type=part.mime, headers=headers)

    async def _parts(
        self, socket: "zmq.asyncio.Socket", first: bytes, is_wanted: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        try:
            yield first
            while is_wanted():
                part, fragments = await _next(socket, VIEWER_TIMEOUT_S)
                if part.ended:
                    return
                yield fragments
        except HTTPException:  # nothing came: the camera or its worker is gone
            return
        finally:
            self._close(socket)

    def _close(self, socket: "zmq.asyncio.Socket") -> None:
        self._streams -= 1
        socket.close()


async def _next(socket: "zmq.asyncio.Socket", timeout_s: float) -> tuple[VideoPart, bytes]:
    try:
        async with asyncio.timeout(timeout_s):
            await socket.send(NEXT)
            return decode_part(await socket.recv_multipart())
    except TimeoutError:
        raise HTTPException(404, "no video: its capture worker does not answer") from None
    except WireError as error:
        raise HTTPException(503, str(error)) from error
