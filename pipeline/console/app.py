"""The console's web application: its pages, and the HTTP API under `/api/v1`.

`/api/v1` itself lists the endpoints, with a JSON schema of every request and response; `/api/v1/openapi.json` is the
same for programs.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from pipeline.config.users import UserRole
from pipeline.console import access, alerts, api, push, zones
from pipeline.console.accounts import Accounts
from pipeline.console.alert_clip import AlertClip
from pipeline.console.alert_path import AlertPath
from pipeline.console.endpoint import ALERT, BEFORE, CAMERA, LIMIT, SINCE, Endpoint, choice, moment, text
from pipeline.console.history import WINDOWS_S, LatencyReport
from pipeline.console.openapi import openapi
from pipeline.console.pages import PAGES, html
from pipeline.console.parameters import json_response
from pipeline.console.security import Guard, require, user_of
from pipeline.console.site import LiveUpdate, Site, SiteStatus
from pipeline.console.site_map import SiteMap
from pipeline.console.status import Status
from pipeline.console.timeline import Timeline
from pipeline.console.trial import TrialResult, Trials
from pipeline.errors import StoreError
from pipeline.redaction import redact
from pipeline.sinks.push_files import PushSubscription
from pipeline.store.alert import Alert
from pipeline.types import Severity, Verdict

Handler = Callable[[Request], Awaitable[Response]]
STATIC = Path(__file__).parent / "static"
SERVICE_WORKER = "service_worker.js"
REVALIDATE = {"cache-control": "no-cache"}  # otherwise old scripts would run after an update

ALERT_FILTERS = (
    choice("state", "any", "active", "ended"),
    choice("unacknowledged", "false", "true"),
    CAMERA,
    text("label", values="NAME"),
    choice("severity", "any", *Severity),
    choice("verdict", "any", "none", *Verdict),
    SINCE,
    BEFORE,
)
LAST = text("after", "those listed after this one")

ENDPOINTS = (
    Endpoint("GET", "/cameras", "cameras", "Status of every camera.", answer=api.Cameras),
    Endpoint(
        *("GET", "/cameras/{camera}/frames/{seq}.jpg", "frame_image", "Image of a recent frame."),
        query=(text("session", "of the frame"),),
        answer="image/jpeg",
    ),
    Endpoint(
        *("GET", "/cameras/{camera}/live.mp4", "live_video", "A camera's own H.264, endless; 404: see its images."),
        answer="video/mp4",
    ),
    Endpoint(
        *("GET", "/cameras/{camera}/zones", "zones", "Zones and privacy masks of a camera, as in the site's file."),
        answer=zones.ZoneSettings,
    ),
    Endpoint(
        *("POST", "/cameras/{camera}/zones/preview", "preview_zones", "What saving these zones would change."),
        body=zones.ZoneEdit,
        role=UserRole.ADMIN,
        errors=("409", "422"),
        answer=zones.ZonePreview,
    ),
    Endpoint(
        *("POST", "/cameras/{camera}/zones/test", "test_zones", "Test the rules with these zones on the last day."),
        body=zones.ZoneEdit,
        role=UserRole.ADMIN,
        errors=("409", "422"),
        answer=zones.RulesTest,
    ),
    Endpoint(
        *("POST", "/cameras/{camera}/zones", "save_zones", "Write zones into the site's file, and apply it."),
        body=zones.ZoneEdit,
        role=UserRole.ADMIN,
        errors=("409", "422"),
        answer=zones.ZonesSaved,
    ),
    Endpoint(
        *("GET", "/alerts", "alerts", "Alerts, newest first; unacknowledged ones: alarms first."),
        query=(LIMIT, LAST, *ALERT_FILTERS),
        answer=alerts.Alerts,
    ),
    Endpoint("GET", "/alerts.json", "alerts_json", "All of these alerts.", query=ALERT_FILTERS, answer=alerts.Alerts),
    Endpoint(
        "GET", "/alerts.csv", "alerts_csv", "All of these alerts, as a table.", query=ALERT_FILTERS, answer="text/csv"
    ),
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
    Endpoint("GET", "/alerts/{alert}/clip.json", "clip_record", "What that clip holds.", answer=AlertClip),
    Endpoint("GET", "/alerts/{alert}/path", "path", "Boxes of the alert's tracks over time.", answer=AlertPath),
    Endpoint(
        *("GET", "/events", "events", "The newest events, or those after one; oldest first."),
        query=(LIMIT, text("after"), CAMERA, ALERT, SINCE, BEFORE),
        answer=api.Events,
    ),
    Endpoint(
        *("GET", "/events/stream", "event_stream", "Server-sent events: every event, once, from Last-Event-ID on."),
        query=(text("after", "as Last-Event-ID; default: new ones"), CAMERA, ALERT, SINCE, BEFORE),
        answer="text/event-stream",
    ),
    Endpoint(
        *("GET", "/timeline", "timeline", "Alerts and blind time of every camera over 24 hours."),
        query=(moment("before", "the end, default now"),),
        answer=Timeline,
    ),
    Endpoint("GET", "/map", "site_map", "Where cameras stand and look, and the map's base layer.", answer=SiteMap),
    Endpoint(*("GET", "/map/image", "map_image", "The image that lies on the map."), answer="image/*", errors=("404",)),
    Endpoint(
        *("GET", "/map/tiles.pmtiles", "map_tiles", "The map's PMTiles file, by ranges of bytes."),
        answer="application/vnd.pmtiles",
        errors=("404",),
    ),
    Endpoint("GET", "/tracks", "tracks", "Tracks, most recently seen first.", (LIMIT,), answer=api.Tracks),
    Endpoint("GET", "/snapshots/{name}", "snapshot", "Image of an alert.", answer="image/jpeg"),
    Endpoint(
        *("GET", "/latency", "latency", "Latency, dropped frames, blind time."),
        query=(choice("window", *WINDOWS_S),),
        answer=LatencyReport,
    ),
    Endpoint("GET", "/status", "status", "Versions, checkpoint, configuration.", answer=Status),
    Endpoint(
        *("POST", "/trials", "trial", "Process an image or short clip, sent as the body; one at a time."),
        query=(text("name", "its extension gives the format", "FILE"),),
        errors=("408", "409", "413"),
        answer=TrialResult,
    ),
    Endpoint(
        "GET", "/trials/{trial}/{name}", "trial_file", "A file of the last trial.", answer="application/octet-stream"
    ),
    Endpoint(
        *("GET", "/live", "live", "Server-sent events: site (SiteStatus), frame (LiveUpdate), alerts, events, tracks."),
        answer="text/event-stream",
    ),
    Endpoint("POST", "/arm", "arm", "Arm the site.", answer=api.Arming),
    Endpoint("POST", "/disarm", "disarm", "Disarm the site.", answer=api.Arming),
    Endpoint("GET", "/push", "push_key", "Key for which browsers subscribe to notifications.", answer=push.PushKey),
    Endpoint(
        *("POST", "/push/subscribe", "push_subscribe", "Notify a browser also while no tab is open."),
        body=PushSubscription,
        role=UserRole.VIEWER,
        errors=("404", "409"),
    ),
    Endpoint(
        *("POST", "/push/unsubscribe", "push_unsubscribe", "Notify it no more."),
        body=push.PushEnd,
        role=UserRole.VIEWER,
    ),
    Endpoint(
        *("POST", "/login", "login", "Open a session, where users log in."),
        body=access.Login,
        needs_session=False,
        errors=("404", "429"),
    ),
    Endpoint("POST", "/logout", "logout", "Close the session.", role=UserRole.VIEWER),
    Endpoint("GET", "/session", "session", "Who asks: user, role, cameras.", answer=access.Session),
    Endpoint(
        *("GET", "/audit", "audit", "What people did, newest first."),
        query=(LIMIT, LAST, text("user", values="NAME"), ALERT, SINCE, BEFORE),
        answer=access.Actions,
        role=UserRole.ADMIN,
    ),
)


def make_app(site: Site, trials: Trials, accounts: Accounts | None) -> ASGIApp:
    """Return the console's ASGI application."""
    handlers = api.Api(site, trials, accounts)
    routes = [
        *(Route(path, partial(_page, path, accounts)) for path in PAGES),
        Route("/healthz", handlers.health),
        Route("/api/v1", _index),
        Route("/api/v1/openapi.json", _openapi),
        *(Route(f"/api/v1{e.path}", _handler(e, handlers), methods=[e.method]) for e in ENDPOINTS),
        Mount("/static", _Static(directory=STATIC)),
    ]
    exception_handlers: dict[Any, Any] = {HTTPException: _http_error, StoreError: _store_error}
    app = Starlette(routes=routes, exception_handlers=exception_handlers)
    return Guard(app, accounts)  # outermost: also around error responses


def _handler(endpoint: Endpoint, handlers: api.Api) -> Handler:
    """Return the handler of an endpoint, for users who may use it."""
    handle: Handler = getattr(handlers, endpoint.handler)
    if not endpoint.needs_session:
        return handle

    async def guarded(request: Request) -> Response:
        require(user_of(request), endpoint.least_role)
        return await handle(request)

    return guarded


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(REVALIDATE)
        if path == SERVICE_WORKER:
            response.headers["service-worker-allowed"] = "/"  # it may open every page
        return response


async def _page(path: str, accounts: Accounts | None, request: Request) -> Response:
    user = request.scope["user"]
    if user is not None:
        require(user, PAGES[path].role)
    has_names = accounts is not None and accounts.has_names
    is_from_proxy = request.scope.get("is_from_proxy", False)
    logs_out = accounts is not None and not accounts.is_named(request.headers, is_from_proxy)
    return HTMLResponse(html(path, user, has_names=has_names, logs_out=logs_out), headers=REVALIDATE)


async def _openapi(_request: Request) -> Response:
    return Response(openapi(ENDPOINTS), media_type="application/json")


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
            "query": e.written_query,
            "body": e.body.__name__ if e.body else "",
            "answer": e.answer if isinstance(e.answer, str) else e.answer.__name__,
            "role": e.least_role if e.needs_session else "",
        }
        for e in ENDPOINTS
    ]
    return json_response({"endpoints": rows, "schemas": dict(sorted(schemas.items()))})


async def _http_error(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": redact(str(error.detail))}, error.status_code, error.headers)


async def _store_error(_: Request, error: StoreError) -> Response:
    return JSONResponse({"error": redact(str(error))}, 503)
