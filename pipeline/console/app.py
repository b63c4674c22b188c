"""The console's web application: its pages, and the HTTP API under `/api/v1`.

`/api/v1` itself lists the endpoints, with a JSON schema of every request and response.
"""

from functools import partial
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

from pipeline.console import alerts, api
from pipeline.console.alert_path import AlertPath
from pipeline.console.history import LatencyReport
from pipeline.console.pages import PAGES, html
from pipeline.console.parameters import json_response
from pipeline.console.password import Password
from pipeline.console.security import Guard
from pipeline.console.site import LiveUpdate, Site, SiteStatus
from pipeline.console.status import Status
from pipeline.console.timeline import Timeline
from pipeline.console.trial import TrialResult, Trials
from pipeline.errors import StoreError
from pipeline.redaction import redact
from pipeline.store.alert import Alert
from pipeline.types import Severity, Verdict

STATIC = Path(__file__).parent / "static"
REVALIDATE = {"cache-control": "no-cache"}  # otherwise old scripts would run after an update

FILTERS = (
    "state=any|active|ended, unacknowledged=false|true, camera=ID, label=NAME, "
    f"severity=any|{'|'.join(Severity)}, verdict=any|none|{'|'.join(Verdict)}, since=TIME, before=TIME"
)


class Endpoint(NamedTuple):
    """An endpoint of the API, and its row in the documentation."""

    method: str
    path: str
    handler: str  # a method of api.Api
    does: str
    query: str = ""
    body: type | None = None
    answer: type | str = ""


ENDPOINTS = (
    Endpoint("GET", "/cameras", "cameras", "Status of every camera.", answer=api.Cameras),
    Endpoint(
        *("GET", "/cameras/{camera}/frames/{seq}.jpg", "frame_image", "Image of a recent frame."),
        query="session: the frame's session",
        answer="image/jpeg",
    ),
    Endpoint(
        *("GET", "/alerts", "alerts", "Alerts, newest first; unacknowledged ones: alarms first."),
        query=f"limit=1..1000, after=ID: those listed after this one, {FILTERS}",
        answer=alerts.Alerts,
    ),
    Endpoint("GET", "/alerts.json", "alerts_json", "All of these alerts.", query=FILTERS, answer=alerts.Alerts),
    Endpoint("GET", "/alerts.csv", "alerts_csv", "All of these alerts, as a table.", query=FILTERS, answer="text/csv"),
    Endpoint("GET", "/alerts/{alert}", "alert", "An alert.", answer=Alert),
    Endpoint(
        *("POST", "/alerts/acknowledge-ended", "acknowledge_ended", "Acknowledge all alerts that have ended."),
        answer=alerts.Acknowledged,
    ),
    Endpoint("POST", "/alerts/{alert}/acknowledge", "acknowledge", "Acknowledge an alert.", answer=Alert),
    Endpoint(
        *("POST", "/alerts/{alert}/verdict", "review", "Give an alert a verdict with a note, or withdraw it."),
        body=alerts.Review,
        answer=Alert,
    ),
    Endpoint(
        *("POST", "/alerts/{alert}/dismiss", "dismiss", "Dismiss an alert with a reason: a verdict without a note."),
        body=alerts.Dismissal,
        answer=Alert,
    ),
    Endpoint(
        *("POST", "/alerts/{alert}/reopen", "reopen", "Withdraw an alert's verdict and acknowledgement."),
        answer=Alert,
    ),
    Endpoint(
        *("POST", "/alerts/{alert}/pin", "pin", "Pin an alert: retention keeps it with its clip and files."),
        answer=Alert,
    ),
    Endpoint("POST", "/alerts/{alert}/unpin", "unpin", "Unpin an alert.", answer=Alert),
    Endpoint("GET", "/alerts/{alert}/clip", "clip", "Clip of an ended alert.", answer="video/mp4"),
    Endpoint("GET", "/alerts/{alert}/clip.json", "clip_record", "What that clip holds.", answer=api.AlertClip),
    Endpoint("GET", "/alerts/{alert}/path", "path", "Boxes of the alert's tracks over time.", answer=AlertPath),
    Endpoint(
        *("GET", "/events", "events", "The newest events, or those after one; oldest first."),
        query="limit=1..1000, after=ID, camera=ID, alert=ID, since=TIME, before=TIME",
        answer=api.Events,
    ),
    Endpoint(
        *("GET", "/timeline", "timeline", "Alerts and blind time of every camera over 24 hours."),
        query="before=TIME: the end, default now",
        answer=Timeline,
    ),
    Endpoint("GET", "/tracks", "tracks", "Tracks, most recently seen first.", "limit=1..1000", answer=api.Tracks),
    Endpoint("GET", "/snapshots/{name}", "snapshot", "Image of an alert.", answer="image/jpeg"),
    Endpoint(
        "GET", "/latency", "latency", "Latency, dropped frames, blind time.", "window=10m|1h|24h", answer=LatencyReport
    ),
    Endpoint("GET", "/status", "status", "Versions, checkpoint, configuration.", answer=Status),
    Endpoint(
        *("POST", "/trials", "trial", "Process an image or short clip, sent as the body; one at a time."),
        query="name: file name; its extension gives the format",
        answer=TrialResult,
    ),
    Endpoint("GET", "/trials/{trial}/{name}", "trial_file", "A file of the last trial.", answer="the file"),
    Endpoint(
        *("GET", "/live", "live", "Server-sent events: site (SiteStatus), frame (LiveUpdate), alerts, events, tracks."),
        answer="text/event-stream",
    ),
    Endpoint("POST", "/arm", "arm", "Arm the site.", answer=api.Arming),
    Endpoint("POST", "/disarm", "disarm", "Disarm the site.", answer=api.Arming),
    Endpoint("POST", "/login", "login", "Open a session, where a password is set.", body=api.Login),
    Endpoint("POST", "/logout", "logout", "Close the session."),
)


def make_app(site: Site, trials: Trials, password: Password | None) -> ASGIApp:
    """Return the console's ASGI application."""
    handlers = api.Api(site, trials, password)
    routes = [
        *(Route(path, partial(_page, path)) for path in PAGES),
        Route("/healthz", handlers.health),
        Route("/api/v1", _index),
        *(Route(f"/api/v1{e.path}", getattr(handlers, e.handler), methods=[e.method]) for e in ENDPOINTS),
        Mount("/static", _Static(directory=STATIC)),
    ]
    exception_handlers: dict[Any, Any] = {HTTPException: _http_error, StoreError: _store_error}
    app = Starlette(routes=routes, exception_handlers=exception_handlers)
    return Guard(app, password)  # outermost: also around error responses


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(REVALIDATE)
        return response


async def _page(path: str, _request: Request) -> Response:
    return HTMLResponse(html(path), headers=REVALIDATE)


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
    return json_response({"endpoints": rows, "schemas": dict(sorted(schemas.items()))})


async def _http_error(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": redact(str(error.detail))}, error.status_code, error.headers)


async def _store_error(_: Request, error: StoreError) -> Response:
    return JSONResponse({"error": redact(str(error))}, 503)
