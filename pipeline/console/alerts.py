"""Request handlers of alerts: what waits, and what operators do with it."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pipeline.console.parameters import body_of, json_response, limit_of
from pipeline.console.search import PAGE, NextPage, alert_filter, as_csv, as_json
from pipeline.console.security import user_of
from pipeline.console.site import Site
from pipeline.console.view import actor_of, sees_alert, shown_alert
from pipeline.store import reviews
from pipeline.store.actions import Actor
from pipeline.store.alert import Alert
from pipeline.store.history_reader import HistoryReader
from pipeline.types import DISMISSALS, Event, Verdict

T = TypeVar("T")
MAX_NOTE_LENGTH = 500
DismissReason = Literal["bird", "aircraft", "insect", "reflection", "other"]


class Alerts(msgspec.Struct, frozen=True):
    """Reply with alerts."""

    alerts: list[Alert]


class Dismissal(msgspec.Struct, frozen=True):
    """Request to dismiss an alert."""

    reason: DismissReason


class Review(msgspec.Struct, frozen=True):
    """Request to give an alert a verdict, or to withdraw it with null."""

    verdict: Verdict | None
    note: Annotated[str, Meta(max_length=MAX_NOTE_LENGTH)] | None = None


class Acknowledged(msgspec.Struct, frozen=True):
    """Reply with how many alerts were acknowledged."""

    alerts: int


class AlertHandlers:
    """Handlers of the endpoints below `/alerts`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def alerts(self, request: Request) -> Response:
        """Return a page of the alerts that are asked for."""
        limit, wanted, after = limit_of(request), alert_filter(request), request.query_params.get("after")
        user = user_of(request)
        last = None if after is None else await self._stored(lambda reader: reader.alert(after))
        if after is not None and (last is None or not sees_alert(user, last)):
            raise HTTPException(400, f"after {after[:100]!r}; must be the id of a stored alert")
        found = await self._stored(lambda reader: reader.search(wanted, limit, last))
        return json_response(Alerts([shown_alert(alert, user) for alert in found]))

    async def alerts_json(self, request: Request) -> Response:
        """Return all alerts that are asked for, as JSON."""
        return self._export(request, as_json, "json", "application/json")

    async def alerts_csv(self, request: Request) -> Response:
        """Return all alerts that are asked for, as a table."""
        return self._export(request, as_csv, "csv", "text/csv; charset=utf-8")

    def _export(
        self, request: Request, encode: Callable[[NextPage], AsyncIterator[bytes]], ending: str, media_type: str
    ) -> Response:
        wanted, user = alert_filter(request), user_of(request)

        async def page(last: Alert | None) -> list[Alert]:
            found = await self._stored(lambda reader: reader.search(wanted, PAGE, last))
            return [shown_alert(alert, user) for alert in found]

        saved = {"content-disposition": f'attachment; filename="alerts.{ending}"'}
        return StreamingResponse(encode(page), media_type=media_type, headers=saved)

    async def alert(self, request: Request) -> Response:
        """Return an alert."""
        return json_response(await self._alert(request))

    async def _alert(self, request: Request) -> Alert:
        """Return the alert of a request as its user sees it.  Raise HTTPException where there is none to see."""
        alert, user = request.path_params["alert"], user_of(request)
        found = await self._stored(lambda reader: reader.alert(alert))
        if found is None or not sees_alert(user, found):
            raise _unknown(alert)
        return shown_alert(found, user)

    async def acknowledge(self, request: Request) -> Response:
        """Acknowledge an alert."""
        return await self._reviewed(request, reviews.acknowledge)

    async def acknowledge_ended(self, request: Request) -> Response:
        """Acknowledge all alerts that have ended."""
        by, cameras = actor_of(request), user_of(request).cameras
        path = self._site.config.store_path
        events = await run_in_threadpool(reviews.acknowledge_ended, path, time.time_ns(), by, cameras)
        await self._publish(events)
        return json_response(Acknowledged(len(events)))

    async def review(self, request: Request) -> Response:
        """Give an alert a verdict with a note, or withdraw it."""
        given = await body_of(request, Review, f"verdict: {' | '.join(Verdict)} | null, note: a string or null")
        note = (given.note or "").strip() or None if given.verdict is not None else None
        return await self._reviewed(
            request, lambda path, alert, now, by: reviews.review(path, alert, given.verdict, note, now, by)
        )

    async def dismiss(self, request: Request) -> Response:
        """Dismiss an alert with a reason: a verdict without a note."""
        given = await body_of(request, Dismissal, f"reason: {' | '.join(DISMISSALS)}")
        verdict = Verdict(given.reason)
        return await self._reviewed(
            request, lambda path, alert, now, by: reviews.review(path, alert, verdict, None, now, by)
        )

    async def reopen(self, request: Request) -> Response:
        """Withdraw an alert's verdict and acknowledgement."""
        return await self._reviewed(request, reviews.reopen)

    async def pin(self, request: Request) -> Response:
        """Pin an alert, so that retention keeps it with its clip and files."""
        return await self._pinned(request, time.time_ns())

    async def unpin(self, request: Request) -> Response:
        """Unpin an alert."""
        return await self._pinned(request, None)

    async def _pinned(self, request: Request, time_utc_ns: int | None) -> Response:
        alert = (await self._alert(request)).id
        await run_in_threadpool(reviews.pin, self._site.config.store_path, alert, time_utc_ns, actor_of(request))
        await self._publish([])
        return await self.alert(request)

    async def _reviewed(
        self, request: Request, write: Callable[[Path, str, int, Actor], list[Event] | None]
    ) -> Response:
        """Store a review, publish it to all browsers, and return the updated alert."""
        alert = (await self._alert(request)).id
        store, by = self._site.config.store_path, actor_of(request)
        events = await run_in_threadpool(write, store, alert, time.time_ns(), by)
        await self._publish(events or [])
        return await self.alert(request)

    async def _publish(self, events: list[Event]) -> None:
        self._site.reviews.count(events)
        await self._site.publish_stored()

    async def _stored(self, query: Callable[[HistoryReader], T]) -> T:
        return await run_in_threadpool(self._site.stored, query)


def _unknown(alert: str) -> HTTPException:
    return HTTPException(404, f"no alert {alert[:100]!r}")
