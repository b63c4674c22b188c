"""What the console answers under `/api/v1`.

In: a request.  Out: JSON of the same objects that events and store hold, a file, or the stream of live events.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar, cast

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse

from pipeline.console.body import blocks
from pipeline.console.cameras import CameraStatus
from pipeline.console.history import WINDOWS_S, Window
from pipeline.console.password import Password, TooManyAttemptsError
from pipeline.console.security import SESSION_COOKIE, session_of
from pipeline.console.sessions import SESSION_S
from pipeline.console.site import Site
from pipeline.console.status import status
from pipeline.console.trial import TrialBusyError, TrialError, TrialResult, Trials
from pipeline.store import reviews
from pipeline.store.store import Alert, StoreReader
from pipeline.types import DismissReason, Event, Track

T = TypeVar("T")
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.(jpg|jpeg|png|webp)")
MAX_NAME_LENGTH = 200
MAX_BODY_BYTES = 4096  # but for an upload
BODY_S, UPLOAD_S = 10.0, 300.0  # until a body is there as a whole
MAX_DIGITS = 19  # of a number: more than any that is kept
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
UNCHANGING = {"cache-control": "private, max-age=31536000, immutable"}


class Cameras(msgspec.Struct, frozen=True):
    now_utc_ns: int
    cameras: list[CameraStatus]


class Alerts(msgspec.Struct, frozen=True):
    alerts: list[Alert]


class Events(msgspec.Struct, frozen=True):
    events: list[Event]


class Tracks(msgspec.Struct, frozen=True):
    tracks: list[Track]


class Dismissal(msgspec.Struct, frozen=True):
    reason: DismissReason


class Login(msgspec.Struct, frozen=True):
    password: str


def answer(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


class Api:
    def __init__(self, site: Site, trials: Trials, password: Password | None) -> None:
        self._site = site
        self._trials = trials
        self._password = password

    async def health(self, _: Request) -> Response:
        """That the console answers, and what it sees.  Whether the cameras are searched is `/api/v1/cameras`."""
        frames = self._site.frames
        health = {"status": "ok", "live": {"received": frames.received, "refused": frames.refused}}
        return answer(health | {"store_error": self._site.store_error})

    async def cameras(self, _: Request) -> Response:
        status = await run_in_threadpool(self._site.status)
        return answer(Cameras(status.now_utc_ns, status.cameras))

    async def picture(self, request: Request) -> Response:
        camera, seq = request.path_params["camera"], request.path_params["seq"]
        is_number = seq.isascii() and seq.isdigit() and len(seq) <= MAX_DIGITS
        session = request.query_params.get("session")
        jpeg = self._site.frames.picture(camera, int(seq), session) if is_number else None
        if jpeg is None:
            raise HTTPException(404, "no such picture is kept; only the last ones of a camera are")
        return Response(jpeg, media_type="image/jpeg")

    async def alerts(self, request: Request) -> Response:
        """`state=active` leaves out those that ended."""
        limit, state = _limit(request), _one_of(request, "state", ("any", "active"))
        return answer(Alerts(await self._stored(lambda reader: reader.alerts(limit, state == "active"))))

    async def acknowledge(self, request: Request) -> Response:
        alert, path = request.path_params["alert"], self._site.config.store_path
        return await self._reviewed(alert, lambda: reviews.acknowledge(path, alert, time.time_ns()))

    async def dismiss(self, request: Request) -> Response:
        alert, path = request.path_params["alert"], self._site.config.store_path
        reason = (await _body(request, Dismissal, f"reason: {', '.join(DismissReason)}")).reason
        return await self._reviewed(alert, lambda: reviews.dismiss(path, alert, reason, time.time_ns()))

    async def _reviewed(self, alert: str, write: Callable[[], bool]) -> Response:
        """The alert as it then is; which all browsers are told before this one has its answer."""
        if not await run_in_threadpool(write):
            raise HTTPException(404, f"no alert {alert[:100]!r}")
        await self._site.publish_stored()
        return answer(await self._stored(lambda reader: reader.alert(alert)))

    async def events(self, request: Request) -> Response:
        """Oldest first: the newest ones, or those after the event whose id is `after`."""
        limit, after = _limit(request), request.query_params.get("after")

        def query(reader: StoreReader) -> list[Event]:
            row = None if after is None else reader.row_of(after)
            if after is not None and row is None:
                raise HTTPException(400, f"after {after[:100]!r}; allowed: the id of a stored event")
            return [stored.event for stored in reader.events(limit, row)]

        return answer(Events(await self._stored(query)))

    async def tracks(self, request: Request) -> Response:
        limit = _limit(request)
        return answer(Tracks(await self._stored(lambda reader: reader.tracks(limit))))

    async def snapshot(self, request: Request) -> Response:
        name, folder = request.path_params["name"], self._site.config.snapshots_path
        path = folder / name
        if len(name) > MAX_NAME_LENGTH or not SNAPSHOT_NAME.fullmatch(name) or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "no such snapshot")
        return FileResponse(path, headers=UNCHANGING)

    async def latency(self, request: Request) -> Response:
        window = cast("Window", _one_of(request, "window", tuple(WINDOWS_S)))
        return answer(await run_in_threadpool(self._site.history.report, window, time.time()))

    async def status(self, _: Request) -> Response:
        return answer(await run_in_threadpool(status, self._site.config, self._site.history.build))

    async def trial(self, request: Request) -> Response:
        """Who goes away before the end ends it."""
        name = request.query_params.get("name", "")
        work = asyncio.ensure_future(self._trials.run(name, _upload(request)))
        watch = asyncio.ensure_future(_gone(request, work))
        try:
            return answer(await work)
        except TrialError as error:
            raise HTTPException(409 if isinstance(error, TrialBusyError) else 400, str(error)) from error
        except (asyncio.CancelledError, ClientDisconnect):
            return Response(status_code=499)  # nobody reads it
        finally:
            watch.cancel()

    async def trial_file(self, request: Request) -> Response:
        trial, name = request.path_params["trial"], request.path_params["name"]
        path = self._trials.path(trial, name) if len(trial + name) <= MAX_NAME_LENGTH else None
        if path is None:
            raise HTTPException(404, "no such file; the results of the last trial alone are kept, for a while")
        sandbox = {"content-security-policy": "sandbox"} if path.suffix == ".html" else {}
        return FileResponse(path, headers=sandbox)

    async def live(self, request: Request) -> Response:
        hub = self._site.hub
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if hub.full:
            raise HTTPException(503, "too many browsers are connected", {"retry-after": "5"})
        password, token = self._password, session_of(request.headers)
        stream = hub.stream(lambda: password is None or password.sessions.is_open(token))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def login(self, request: Request) -> Response:
        if self._password is None:
            raise HTTPException(404, "this console has no password")
        given = (await _body(request, Login, "password: a text")).password
        try:
            session = await self._password.check(given, request.client.host if request.client else "")
        except TooManyAttemptsError as error:
            text = f"too many wrong passwords from this address; try again in {error.wait_s} s"
            raise HTTPException(429, text, {"retry-after": str(error.wait_s)}) from error
        if session is None:
            raise HTTPException(401, "wrong password")
        response = Response(status_code=204)
        secure = request.url.scheme == "https"
        response.set_cookie(SESSION_COOKIE, session, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
        return response

    async def logout(self, request: Request) -> Response:
        if self._password is not None:
            self._password.sessions.end(session_of(request.headers))
        response = Response(status_code=204)
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
        return response

    async def _stored(self, query: Callable[[StoreReader], T]) -> T:
        return await run_in_threadpool(self._site.stored, query)


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_LIMIT and len(text) <= 6):
        raise HTTPException(400, f"limit {text[:100]!r}; allowed: 1 to {MAX_LIMIT}")
    return int(text)


def _one_of(request: Request, key: str, allowed: tuple[str, ...]) -> str:
    """The first one where none is named."""
    value = request.query_params.get(key, allowed[0])
    if value not in allowed:
        raise HTTPException(400, f"{key} {value[:100]!r}; allowed: {', '.join(allowed)}")
    return value


async def _body(request: Request, kind: type[T], allowed: str) -> T:
    content = b""
    async for block in blocks(request, BODY_S):
        content += block
        if len(content) > MAX_BODY_BYTES:
            raise HTTPException(413, f"a body of more than {MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise HTTPException(400, f"the body is refused ({error}); allowed: JSON with {allowed}") from error


async def _upload(request: Request) -> AsyncIterator[bytes]:
    """Says when all is read, so that the rest of the connection may be watched."""
    async for block in blocks(request, UPLOAD_S):
        yield block
    request.state.is_read = True


async def _gone(request: Request, work: "asyncio.Future[TrialResult]") -> None:
    while not (getattr(request.state, "is_read", False) and await request.is_disconnected()):
        await asyncio.sleep(0.25)
    work.cancel()
