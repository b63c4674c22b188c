"""The console's web application.

In: HTTP requests.  Out: the pages, and under `/api/v1` what `api.py` answers; `/api/v1` itself says what there is, with
a JSON schema of everything that is sent or answered.
"""

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from pipeline.console import api
from pipeline.console.history import LatencyReport
from pipeline.console.pages import PAGES, html
from pipeline.console.password import Password
from pipeline.console.security import Guard
from pipeline.console.site import LiveUpdate, Site, SiteStatus
from pipeline.console.status import Status
from pipeline.console.trial import TrialResult, Trials
from pipeline.errors import StoreError
from pipeline.redaction import redact
from pipeline.store.store import Alert

STATIC = Path(__file__).parent / "static"
REVALIDATE = {"cache-control": "no-cache"}  # after an update the page must not run old scripts


class Endpoint(NamedTuple):
    """One row of the API's documentation, which is also what is served."""

    method: str
    path: str
    handler: str  # a method of api.Api
    does: str
    query: str = ""
    body: type | None = None
    answer: type | str = ""


ENDPOINTS = (
    Endpoint("GET", "/cameras", "cameras", "State of every camera.", answer=api.Cameras),
    Endpoint(
        *("GET", "/cameras/{camera}/frames/{seq}.jpg", "picture", "One of the last pictures of a camera."),
        query="session: that of the frame",
        answer="image/jpeg",
    ),
    Endpoint("GET", "/alerts", "alerts", "The newest first.", "limit=1..1000, state=any|active", answer=api.Alerts),
    Endpoint("POST", "/alerts/{alert}/acknowledge", "acknowledge", "Somebody has seen it.", answer=Alert),
    Endpoint(
        *("POST", "/alerts/{alert}/dismiss", "dismiss", "It is nothing, but what `reason` says."),
        body=api.Dismissal,
        answer=Alert,
    ),
    Endpoint(
        *("GET", "/events", "events", "The newest, or those after one; oldest first."),
        query="limit=1..1000, after=ID",
        answer=api.Events,
    ),
    Endpoint("GET", "/tracks", "tracks", "The last seen first.", "limit=1..1000", answer=api.Tracks),
    Endpoint("GET", "/snapshots/{name}", "snapshot", "The picture that raised an alert.", answer="image/jpeg"),
    Endpoint("GET", "/latency", "latency", "Latency, drops, blind time.", "window=10m|1h|24h", answer=LatencyReport),
    Endpoint("GET", "/status", "status", "Versions, checkpoint, configuration.", answer=Status),
    Endpoint(
        *("POST", "/trials", "trial", "Search a picture or a short clip, sent as the body; one at a time."),
        query="name: the file's, which says by its ending what it is",
        answer=TrialResult,
    ),
    Endpoint("GET", "/trials/{trial}/{name}", "trial_file", "A file of the last trial.", answer="the file"),
    Endpoint(
        *("GET", "/live", "live", "Server-sent events: site (SiteStatus), frame (LiveUpdate), alerts, events, tracks."),
        answer="text/event-stream",
    ),
    Endpoint("POST", "/login", "login", "Opens a session, where a password is set.", body=api.Login),
    Endpoint("POST", "/logout", "logout", "Ends it."),
)


def make_app(site: Site, trials: Trials, password: Password | None) -> ASGIApp:
    handlers = api.Api(site, trials, password)
    routes = [
        *(Route(path, _page) for path in PAGES),
        Route("/healthz", handlers.health),
        Route("/api/v1", _index),
        *(Route(f"/api/v1{e.path}", getattr(handlers, e.handler), methods=[e.method]) for e in ENDPOINTS),
        Mount("/static", _Static(directory=STATIC)),
    ]
    refusals: dict[Any, Any] = {HTTPException: _refused, StoreError: _unreadable}
    app = Starlette(routes=routes, exception_handlers=refusals)
    return Guard(app, password)  # outermost: around failures as well


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(REVALIDATE)
        return response


async def _page(request: Request) -> Response:
    return HTMLResponse(html(request.url.path), headers=REVALIDATE)


async def _index(_request: Request) -> Response:
    types = {kind for e in ENDPOINTS for kind in (e.body, e.answer) if isinstance(kind, type)} | {
        SiteStatus,
        LiveUpdate,
    }
    _types, schemas = msgspec.json.schema_components(types, ref_template="#/schemas/{name}")
    rows = [
        {
            "method": e.method,
            "path": f"/api/v1{e.path}",
            "does": e.does,
            "query": e.query,
            "body": e.body.__name__ if e.body else "",
            "answer": e.answer if isinstance(e.answer, str) else e.answer.__name__,
        }
        for e in ENDPOINTS
    ]
    return api.answer({"endpoints": rows, "schemas": dict(sorted(schemas.items()))})


async def _refused(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": redact(str(error.detail))}, error.status_code, error.headers)


async def _unreadable(_: Request, error: StoreError) -> Response:
    return JSONResponse({"error": redact(str(error))}, 503)
