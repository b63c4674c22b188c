"""Request handlers of the HTTP API under `/api/v1`.

They return JSON of the objects that events and store hold, a file, or the stream of live events.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar, cast

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse

from pipeline.console.alert_path import AlertPath, alert_path
from pipeline.console.alerts import AlertHandlers
from pipeline.console.body import blocks
from pipeline.console.cameras import CameraStatus
from pipeline.console.history import WINDOWS_S, Window
from pipeline.console.parameters import body_of, json_response, limit_of, one_of
from pipeline.console.password import Password, TooManyAttemptsError
from pipeline.console.search import event_filter, time_of
from pipeline.console.security import SESSION_COOKIE, session_of
from pipeline.console.sessions import SESSION_S
from pipeline.console.site import Site
from pipeline.console.status import status
from pipeline.console.timeline import DAY_S, STEP_S, Timeline, camera_timeline
from pipeline.console.trial import TrialBusyError, TrialError, TrialResult, Trials
from pipeline.errors import DasnetError
from pipeline.runtime.arming import set_armed
from pipeline.store.clips import ClipRecord, partial, read_record, record_path, video_path
from pipeline.store.history_reader import HistoryReader
from pipeline.types import Event, Track

T = TypeVar("T")
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.(jpg|jpeg|png|webp)")
ALERT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_NAME_LENGTH = 200
UPLOAD_TIMEOUT_S = 300.0  # for the complete body
MAX_DIGITS = 19  # of a sequence number
UNCHANGING = {"cache-control": "private, max-age=31536000, immutable"}


class Cameras(msgspec.Struct, frozen=True):
    """Reply with the status of all cameras."""

    now_utc_ns: int
    cameras: list[CameraStatus]


class Events(msgspec.Struct, frozen=True):
    """Reply with events."""

    events: list[Event]


class Tracks(msgspec.Struct, frozen=True):
    """Reply with tracks."""

    tracks: list[Track]


class AlertClip(msgspec.Struct, frozen=True):
    """Reply with the record of an alert's clip; null: there is none, or none yet.

    `state`: none, pending (it is being written, or not here yet), failed (it is lost) or written; `reason`: why it is
    pending, failed or incomplete.
    """

    state: Literal["none", "pending", "failed", "written"]
    reason: str
    clip: ClipRecord | None


class Arming(msgspec.Struct, frozen=True):
    """Reply with whether the site is armed."""

    armed: bool


class Login(msgspec.Struct, frozen=True):
    """Request to log in."""

    password: str


class Api(AlertHandlers):
    """Handlers of all endpoints."""

    def __init__(self, site: Site, trials: Trials, password: Password | None) -> None:
        super().__init__(site)
        self._trials = trials
        self._password = password

    async def health(self, _: Request) -> Response:
        """Return the health of the console itself; `/api/v1/cameras` has the status of the cameras."""
        frames = self._site.frames
        health = {"status": "ok", "live": {"received": frames.received, "refused": frames.refused}}
        return json_response(health | {"store_error": self._site.store_error})

    async def cameras(self, _: Request) -> Response:
        """Return the status of every camera."""
        status = await run_in_threadpool(self._site.status)
        return json_response(Cameras(status.now_utc_ns, status.cameras))

    async def frame_image(self, request: Request) -> Response:
        """Return the JPEG of a recent frame."""
        camera, seq = request.path_params["camera"], request.path_params["seq"]
        is_number = seq.isascii() and seq.isdigit() and len(seq) <= MAX_DIGITS
        session = request.query_params.get("session")
        jpeg = self._site.frames.image(camera, int(seq), session) if is_number else None
        if jpeg is None:
            raise HTTPException(404, "no such frame; only the most recent ones of a camera are kept")
        return Response(jpeg, media_type="image/jpeg")

    async def arm(self, _: Request) -> Response:
        """Arm the site."""
        return await self._set_armed(armed=True)

    async def disarm(self, _: Request) -> Response:
        """Disarm the site."""
        return await self._set_armed(armed=False)

    async def _set_armed(self, *, armed: bool) -> Response:
        try:
            await run_in_threadpool(set_armed, self._site.config.run_dir, armed=armed)
        except DasnetError as error:
            raise HTTPException(503, str(error)) from error
        return json_response(Arming(armed))

    async def events(self, request: Request) -> Response:
        """Return the newest events that are asked for, or those after the event with id `after`; oldest first."""
        limit, wanted, after = limit_of(request), event_filter(request), request.query_params.get("after")

        def query(reader: HistoryReader) -> list[Event]:
            row = None if after is None else reader.row_of(after)
            if after is not None and row is None:
                raise HTTPException(400, f"after {after[:100]!r}; must be the id of a stored event")
            return reader.search_events(wanted, limit, row)

        return json_response(Events(await self._stored(query)))

    async def timeline(self, request: Request) -> Response:
        """Return alerts and blind time of every camera over a day."""
        before_ns = time_of(request, "before") or time.time_ns()
        step_ns = round(STEP_S * 1e9)
        since_ns = (before_ns - round(DAY_S * 1e9)) // step_ns * step_ns  # steps begin at whole minutes
        named = [camera.id for camera in self._site.config.cameras]

        def query(reader: HistoryReader) -> Timeline:
            counts = reader.alert_counts(since_ns, before_ns, step_ns)
            cameras = dict.fromkeys(named) | dict.fromkeys(sorted({count.camera for count in counts}))
            states = {camera: reader.camera_states(camera, since_ns, before_ns) for camera in cameras}
            lines = [camera_timeline(camera, counts, states[camera], since_ns, before_ns) for camera in cameras]
            return Timeline(since_ns, before_ns, STEP_S, lines)

        return json_response(await self._stored(query))

    async def path(self, request: Request) -> Response:
        """Return where the tracks of an alert were."""
        alert = request.path_params["alert"]
        if not ALERT_ID.fullmatch(alert):
            return json_response(AlertPath("", []))
        return json_response(await run_in_threadpool(alert_path, self._site.config.evidence_path, alert))

    async def tracks(self, request: Request) -> Response:
        """Return the most recently seen tracks."""
        limit = limit_of(request)
        return json_response(Tracks(await self._stored(lambda reader: reader.tracks(limit))))

    async def snapshot(self, request: Request) -> Response:
        """Return the image of an alert."""
        name, folder = request.path_params["name"], self._site.config.snapshots_path
        path = folder / name
        if len(name) > MAX_NAME_LENGTH or not SNAPSHOT_NAME.fullmatch(name) or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "no such snapshot")
        return FileResponse(path, headers=UNCHANGING)

    async def clip(self, request: Request) -> Response:
        """Return the clip of an alert, or the range of bytes that is requested."""
        alert, folder = request.path_params["alert"], self._site.config.clips_path
        path = video_path(folder, alert)
        if not ALERT_ID.fullmatch(alert) or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "no clip of this alert; it is written when the alert has ended")
        return FileResponse(path, headers=UNCHANGING)

    async def clip_record(self, request: Request) -> Response:
        """Return what the clip of an alert holds."""
        alert = request.path_params["alert"]
        if not ALERT_ID.fullmatch(alert):
            return json_response(AlertClip("none", "", None))
        return json_response(await run_in_threadpool(_alert_clip, record_path(self._site.config.clips_path, alert)))

    async def latency(self, request: Request) -> Response:
        """Return latency and losses over a time window."""
        window = cast("Window", one_of(request, "window", tuple(WINDOWS_S)))
        return json_response(await run_in_threadpool(self._site.history.report, window, time.time()))

    async def status(self, _: Request) -> Response:
        """Return versions, checkpoint and configuration."""
        return json_response(await run_in_threadpool(status, self._site.config, self._site.history.build))

    async def trial(self, request: Request) -> Response:
        """Process an uploaded image or clip; a client disconnect cancels it."""
        name = request.query_params.get("name", "")
        work = asyncio.ensure_future(self._trials.run(name, _upload(request)))
        watch = asyncio.ensure_future(_cancel_on_disconnect(request, work))
        try:
            return json_response(await work)
        except TrialError as error:
            raise HTTPException(409 if isinstance(error, TrialBusyError) else 400, str(error)) from error
        except (asyncio.CancelledError, ClientDisconnect):
            return Response(status_code=499)  # client closed the connection
        finally:
            watch.cancel()

    async def trial_file(self, request: Request) -> Response:
        """Return a file of the last trial."""
        trial, name = request.path_params["trial"], request.path_params["name"]
        path = self._trials.path(trial, name) if len(trial + name) <= MAX_NAME_LENGTH else None
        if path is None:
            raise HTTPException(404, "no such file; only the results of the last trial are kept, for ten minutes")
        sandbox = {"content-security-policy": "sandbox"} if path.suffix == ".html" else {}
        return FileResponse(path, headers=sandbox)

    async def live(self, request: Request) -> Response:
        """Stream server-sent events."""
        hub = self._site.hub
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if hub.full:
            raise HTTPException(503, "too many browsers are connected", {"retry-after": "5"})
        password, token = self._password, session_of(request.headers)
        stream = hub.stream(lambda: password is None or password.sessions.is_open(token))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def login(self, request: Request) -> Response:
        """Open a session."""
        if self._password is None:
            raise HTTPException(404, "this console has no password")
        given = (await body_of(request, Login, "password: a string")).password
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
        """Close the session."""
        if self._password is not None:
            self._password.sessions.end(session_of(request.headers))
        response = Response(status_code=204)
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
        return response


async def _upload(request: Request) -> AsyncIterator[bytes]:
    """Yield the body, and mark the request when it is complete, so that a disconnect can be watched for."""
    async for block in blocks(request, UPLOAD_TIMEOUT_S):
        yield block
    request.state.is_read = True


async def _cancel_on_disconnect(request: Request, work: "asyncio.Future[TrialResult]") -> None:
    while not (getattr(request.state, "is_read", False) and await request.is_disconnected()):
        await asyncio.sleep(0.25)
    work.cancel()


def _alert_clip(path: Path) -> AlertClip:
    """Return what is known of a clip from its record at this path, or from that of a clip that is not complete."""
    with suppress(OSError, ValueError):  # there is none, or no longer
        clip = read_record(path)
        return AlertClip("failed", clip.reason, None) if clip.is_lost else AlertClip("written", clip.reason, clip)
    with suppress(OSError, ValueError):
        return AlertClip("pending", read_record(partial(path)).reason, None)
    return AlertClip("none", "", None)
