"""Request handlers of the HTTP API under `/api/v1`.

They return JSON of the objects that events and store hold, a file, or the stream of live events.
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

from pipeline.console.access import AccessHandlers
from pipeline.console.accounts import Accounts
from pipeline.console.alert_clip import AlertClip, alert_clip
from pipeline.console.alert_path import AlertPath, alert_path
from pipeline.console.alerts import AlertHandlers
from pipeline.console.body import blocks
from pipeline.console.cameras import CameraStatus
from pipeline.console.event_stream import start_of, stream_events
from pipeline.console.history import WINDOWS_S, Window
from pipeline.console.live_video import LiveVideo
from pipeline.console.parameters import json_response, limit_of, one_of
from pipeline.console.push import PushHandlers
from pipeline.console.search import event_filter, time_of
from pipeline.console.security import user_of
from pipeline.console.site import Site
from pipeline.console.site_map import MapHandlers
from pipeline.console.status import status
from pipeline.console.timeline import DAY_S, STEP_S, Timeline, camera_timeline
from pipeline.console.trial import TrialBusyError, TrialError, TrialResult, Trials
from pipeline.console.view import actor_of, shown_event, shown_path, shown_status, shows_snapshot
from pipeline.console.zones import ZoneHandlers
from pipeline.errors import DasnetError
from pipeline.runtime.arming import set_armed
from pipeline.store.actions import ActionKind
from pipeline.store.clips import record_path, video_path
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


class Arming(msgspec.Struct, frozen=True):
    """Reply with whether the site is armed."""

    armed: bool


class Api(AlertHandlers, AccessHandlers, MapHandlers, PushHandlers, ZoneHandlers):
    """Handlers of all endpoints."""

    def __init__(self, site: Site, trials: Trials, accounts: Accounts | None) -> None:
        AlertHandlers.__init__(self, site)
        ZoneHandlers.__init__(self)
        self._trials = trials
        self._video = LiveVideo()
        self._accounts = accounts

    async def health(self, _: Request) -> Response:
        """Return the health of the console itself; `/api/v1/cameras` has the status of the cameras."""
        frames = self._site.frames
        health = {"status": "ok", "live": {"received": frames.received, "refused": frames.refused}}
        return json_response(health | {"store_error": self._site.store_error})

    async def cameras(self, request: Request) -> Response:
        """Return the status of every camera."""
        status, user = await run_in_threadpool(self._site.status), user_of(request)
        return json_response(Cameras(status.now_utc_ns, [camera for camera in status.cameras if user.sees(camera.id)]))

    async def frame_image(self, request: Request) -> Response:
        """Return the JPEG of a recent frame."""
        camera, seq = request.path_params["camera"], request.path_params["seq"]
        is_number = seq.isascii() and seq.isdigit() and len(seq) <= MAX_DIGITS
        session = request.query_params.get("session")
        is_shown = is_number and user_of(request).sees(camera)
        jpeg = self._site.frames.image(camera, int(seq), session) if is_shown else None
        if jpeg is None:
            raise HTTPException(404, "no such frame; only the most recent ones of a camera are kept")
        return Response(jpeg, media_type="image/jpeg")

    async def arm(self, request: Request) -> Response:
        """Arm the site."""
        return await self._set_armed(request, armed=True)

    async def disarm(self, request: Request) -> Response:
        """Disarm the site."""
        return await self._set_armed(request, armed=False)

    async def _set_armed(self, request: Request, *, armed: bool) -> Response:
        user = user_of(request)
        if user.cameras is not None:
            raise HTTPException(403, f"arming is of the whole site; {user.name} has the rights of some cameras only")
        try:
            await run_in_threadpool(set_armed, self._site.config.run_dir, armed=armed)
        except DasnetError as error:
            raise HTTPException(503, str(error)) from error
        await self.record(actor_of(request), ActionKind.ARM if armed else ActionKind.DISARM)
        return json_response(Arming(armed))

    async def events(self, request: Request) -> Response:
        """Return the newest events that are asked for, or those after the event with id `after`; oldest first."""
        limit, wanted, after = limit_of(request), event_filter(request), request.query_params.get("after")
        user = user_of(request)

        def query(reader: HistoryReader) -> list[Event]:
            row = None if after is None else reader.row_of(after)
            if after is not None and row is None:
                raise HTTPException(400, f"after {after[:100]!r}; must be the id of a stored event")
            return [shown_event(event, user) for event in reader.search_events(wanted, limit, row)]

        return json_response(Events(await self._stored(query)))

    async def event_stream(self, request: Request) -> Response:
        """Stream events as they are stored, from the one with the id `Last-Event-ID` or `after` on."""
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        wanted, user = event_filter(request), user_of(request)
        last = request.headers.get("last-event-id") or request.query_params.get("after")
        start = await self._stored(lambda reader: start_of(reader, last))
        return self._streamed(stream_events(self._site, user, wanted, start, self._is_wanted(request)))

    async def timeline(self, request: Request) -> Response:
        """Return alerts and blind time of every camera over a day."""
        before_ns = time_of(request, "before") or time.time_ns()
        step_ns = round(STEP_S * 1e9)
        since_ns = (before_ns - round(DAY_S * 1e9)) // step_ns * step_ns  # steps begin at whole minutes
        user = user_of(request)
        named = [camera.id for camera in self._site.config.cameras if user.sees(camera.id)]

        def query(reader: HistoryReader) -> Timeline:
            counts = [each for each in reader.alert_counts(since_ns, before_ns, step_ns) if user.sees(each.camera)]
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
        path = await run_in_threadpool(alert_path, self._site.config.evidence_path, alert)
        return json_response(shown_path(path, user_of(request)))

    async def tracks(self, request: Request) -> Response:
        """Return the most recently seen tracks."""
        limit, cameras = limit_of(request), user_of(request).cameras
        return json_response(Tracks(await self._stored(lambda reader: reader.tracks_of(cameras, limit))))

    async def snapshot(self, request: Request) -> Response:
        """Return the image of an alert."""
        name, folder = request.path_params["name"], self._site.config.snapshots_path
        path = folder / name
        if len(name) > MAX_NAME_LENGTH or not SNAPSHOT_NAME.fullmatch(name) or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "no such snapshot")
        user = user_of(request)
        if user.cameras is not None and not await self._stored(lambda reader: shows_snapshot(reader, name, user)):
            raise HTTPException(404, "no such snapshot")
        return FileResponse(path, headers=UNCHANGING)

    async def clip(self, request: Request) -> Response:
        """Return the clip of an alert, or the range of bytes that is requested."""
        alert, folder = request.path_params["alert"], self._site.config.clips_path
        path = video_path(folder, alert)
        if not ALERT_ID.fullmatch(alert) or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "no clip of this alert; it is written when the alert has ended")
        if user_of(request).cameras is not None and not (await self._clip_record(request)).clip:
            raise HTTPException(404, "no clip of this alert")
        return FileResponse(path, headers=UNCHANGING)

    async def clip_record(self, request: Request) -> Response:
        """Return what the clip of an alert holds."""
        return json_response(await self._clip_record(request))

    async def _clip_record(self, request: Request) -> AlertClip:
        """Return what is known of a clip, of one that the user sees."""
        alert, none = request.path_params["alert"], AlertClip("none", "", None)
        if not ALERT_ID.fullmatch(alert):
            return none
        known = await run_in_threadpool(alert_clip, record_path(self._site.config.clips_path, alert))
        user = user_of(request)
        is_shown = user.cameras is None or (known.clip is not None and user.sees(known.clip.camera))
        return known if is_shown else none

    async def latency(self, request: Request) -> Response:
        """Return latency and losses over a time window."""
        window = cast("Window", one_of(request, "window", tuple(WINDOWS_S)))
        report, user = await run_in_threadpool(self._site.history.report, window, time.time()), user_of(request)
        losses = [loss for loss in report.losses if user.sees(loss.camera)]
        return json_response(msgspec.structs.replace(report, losses=losses))

    async def status(self, request: Request) -> Response:
        """Return versions, checkpoint and configuration."""
        whole = await run_in_threadpool(status, self._site.config, self._site.history.build)
        return json_response(shown_status(whole, user_of(request)))

    async def trial(self, request: Request) -> Response:
        """Process an uploaded image or clip; a client disconnect cancels it."""
        name = request.query_params.get("name", "")
        await self.record(actor_of(request), ActionKind.TRIAL, name[:MAX_NAME_LENGTH])
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
        return self._streamed(hub.stream(self._is_wanted(request), user_of(request).cameras))

    async def live_video(self, request: Request) -> Response:
        """Stream a camera's own video as fragmented MP4."""
        camera, user = request.path_params["camera"], user_of(request)
        known = [name for name in self._site.frames.cameras if user.sees(name)]
        if request.method == "HEAD" and camera in known:
            return Response(media_type="video/mp4")
        return await self._video.response(camera, known, self._is_wanted(request))

    def _streamed(self, messages: AsyncIterator[bytes]) -> Response:
        return StreamingResponse(messages, media_type="text/event-stream")

    def _is_wanted(self, request: Request) -> Callable[[], bool]:
        """Return a function that returns whether the user of a request is still who it was."""
        accounts, user, is_from_proxy = self._accounts, user_of(request), request.scope.get("is_from_proxy", False)
        return lambda: accounts is None or accounts.is_still(user, request.headers, is_from_proxy)


async def _upload(request: Request) -> AsyncIterator[bytes]:
    """Yield the body, and mark the request when it is complete, so that a disconnect can be watched for."""
    async for block in blocks(request, UPLOAD_TIMEOUT_S):
        yield block
    request.state.is_read = True


async def _cancel_on_disconnect(request: Request, work: "asyncio.Future[TrialResult]") -> None:
    while not (getattr(request.state, "is_read", False) and await request.is_disconnected()):
        await asyncio.sleep(0.25)
    work.cancel()
