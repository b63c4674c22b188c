"""The console's web application.

In: HTTP requests.  Out: the page, its data as JSON under `/api/v1`, pictures, and the stream of live events.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from pipeline.console.security import Guard
from pipeline.console.site import Site
from pipeline.errors import StoreError
from pipeline.sinks.store import StoreReader

T = TypeVar("T")
STATIC = Path(__file__).parent / "static"
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.(jpg|jpeg|png|webp)")
MAX_NAME_LENGTH = 200
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
REVALIDATE = {"cache-control": "no-cache"}  # after an update the page must not run old scripts
UNCHANGING = {"cache-control": "private, max-age=31536000, immutable"}


def make_app(site: Site) -> ASGIApp:
    api = _Api(site)
    routes = [
        Route("/", api.page),
        Route("/healthz", api.health),
        Route("/api/v1/cameras", api.cameras),
        Route("/api/v1/cameras/{camera}/frames/{seq:int}.jpg", api.picture),
        Route("/api/v1/alerts", api.alerts),
        Route("/api/v1/events", api.events),
        Route("/api/v1/tracks", api.tracks),
        Route("/api/v1/snapshots/{name}", api.snapshot),
        Route("/api/v1/live", api.live),
        Mount("/static", _Static(directory=STATIC)),
    ]
    handlers: dict[Any, Any] = {HTTPException: _refused, StoreError: _unreadable}
    return Guard(Starlette(routes=routes, exception_handlers=handlers))  # outermost: around failures as well


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(REVALIDATE)
        return response


class _Api:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def page(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers=REVALIDATE)

    async def health(self, _: Request) -> Response:
        """That the console answers, and what it sees.  Whether the cameras are searched is `/api/v1/cameras`."""
        frames = self._site.frames
        health = {"status": "ok", "live": {"received": frames.received, "refused": frames.refused}}
        return _json(health | {"store_error": self._site.store_error})

    async def cameras(self, _: Request) -> Response:
        status = await run_in_threadpool(self._site.status)
        return _json({"now_utc_ns": status.now_utc_ns, "cameras": status.cameras})

    async def picture(self, request: Request) -> Response:
        camera, seq = request.path_params["camera"], request.path_params["seq"]
        jpeg = self._site.frames.picture(camera, seq, request.query_params.get("session"))
        if jpeg is None:
            raise HTTPException(404, "no such picture is kept; only the last ones of a camera are")
        return Response(jpeg, media_type="image/jpeg")

    async def alerts(self, request: Request) -> Response:
        """The newest first.  `state=active` leaves out those that ended."""
        limit, state = _limit(request), request.query_params.get("state", "any")
        if state not in ("any", "active"):
            raise HTTPException(400, f"state {state[:100]!r}; allowed: any, active")
        return _json({"alerts": await self._stored(lambda reader: reader.alerts(limit, state == "active"))})

    async def events(self, request: Request) -> Response:
        """Oldest first: the newest ones, or those after the event whose id is `after`."""
        limit, after = _limit(request), request.query_params.get("after")

        def query(reader: StoreReader) -> list[Any]:
            row = None if after is None else reader.row_of(after)
            if after is not None and row is None:
                raise HTTPException(400, f"after {after[:100]!r}; allowed: the id of a stored event")
            return [stored.event for stored in reader.events(limit, row)]

        return _json({"events": await self._stored(query)})

    async def tracks(self, request: Request) -> Response:
        """The last seen first."""
        limit = _limit(request)
        return _json({"tracks": await self._stored(lambda reader: reader.tracks(limit))})

    async def snapshot(self, request: Request) -> Response:
        name, folder = request.path_params["name"], self._site.config.run_dir / "snapshots"
        path = folder / name
        if len(name) > MAX_NAME_LENGTH or not SNAPSHOT_NAME.fullmatch(name) or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "no such snapshot")
        return FileResponse(path, headers=UNCHANGING)

    async def live(self, request: Request) -> Response:
        hub = self._site.hub
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if hub.full:
            raise HTTPException(503, "too many browsers are connected", {"retry-after": "5"})
        return StreamingResponse(hub.stream(), media_type="text/event-stream")

    async def _stored(self, query: Callable[[StoreReader], T]) -> T:
        return await run_in_threadpool(self._site.stored, query)


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_LIMIT and len(text) <= 6):
        raise HTTPException(400, f"limit {text[:100]!r}; allowed: 1 to {MAX_LIMIT}")
    return int(text)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


async def _refused(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _unreadable(_: Request, error: StoreError) -> Response:
    return JSONResponse({"error": str(error)}, 503)
