"""Query parameters that choose alerts, events and actions, and export of the alerts that they choose."""

import csv
import io
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request

from pipeline.console.parameters import one_of
from pipeline.console.security import user_of
from pipeline.store.alert import Alert, State
from pipeline.store.history_reader import ActionFilter, AlertFilter, EventFilter
from pipeline.types import Severity, Verdict

ANY, NONE = "any", "none"
PAGE = 1000  # alerts per query of an export
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_NS = 2**62  # in the year 2116; the store's integers, and sums of them, end later
_COLUMNS = ("id", "camera", "opened", "ended", "severity", "label", "rule", "score", "acknowledged", "verdict", "note")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet takes a text for a formula

NextPage = Callable[[Alert | None], Any]  # awaitable list of alerts


def time_of(request: Request, key: str) -> int | None:
    """Return a query parameter as UTC in ns, or None where it is not given."""
    text = request.query_params.get(key)
    if text is None:
        return None
    try:
        time: datetime = msgspec.convert(text, Annotated[datetime, Meta(tz=True)])
        return min(max(0, (time - _EPOCH) // timedelta(microseconds=1) * 1000), _MOST_NS)
    except (msgspec.ValidationError, OverflowError) as error:
        told = "must be a time with its zone, such as 2026-05-04T03:02:01Z"
        raise HTTPException(400, f"{key} {text[:100]!r}; {told}") from error


def alert_filter(request: Request) -> AlertFilter:
    """Return which alerts a request asks for."""
    state, severity, verdict = (
        None if value == ANY else value
        for value in (
            one_of(request, "state", (ANY, "active", "ended")),
            one_of(request, "severity", (ANY, *Severity)),
            one_of(request, "verdict", (ANY, NONE, *Verdict)),
        )
    )
    return AlertFilter(
        state=cast("State | None", state),
        is_unacknowledged=one_of(request, "unacknowledged", ("false", "true")) == "true",
        camera=request.query_params.get("camera"),
        label=request.query_params.get("label"),
        severity=Severity(severity) if severity else None,
        verdict=cast("Verdict | Literal['none'] | None", verdict),
        since_utc_ns=time_of(request, "since"),
        before_utc_ns=time_of(request, "before"),
        cameras=user_of(request).cameras,
    )


def event_filter(request: Request) -> EventFilter:
    """Return which events a request asks for."""
    camera, alert = (request.query_params.get(key) for key in ("camera", "alert"))
    times = time_of(request, "since"), time_of(request, "before")
    return EventFilter(camera, alert, *times, user_of(request).cameras)


def action_filter(request: Request) -> ActionFilter:
    """Return which actions a request asks for."""
    user, alert = (request.query_params.get(key) for key in ("user", "alert"))
    since, before = time_of(request, "since"), time_of(request, "before")
    return ActionFilter(user, alert, since, before, user_of(request).cameras)


async def as_json(pages: NextPage) -> AsyncIterator[bytes]:
    """Yield alerts as in the answer to a request for them."""
    before = b'{"alerts":['
    async for alerts in _all(pages):
        yield before + b",".join(map(msgspec.json.encode, alerts))
        before = b","
    yield b"]}" if before == b"," else before + b"]}"


async def as_csv(pages: NextPage) -> AsyncIterator[bytes]:
    """Yield alerts as a table with times in UTC."""
    yield _lines([_COLUMNS])
    async for alerts in _all(pages):
        yield _lines([_row(alert) for alert in alerts])


async def _all(pages: NextPage) -> AsyncIterator[list[Alert]]:
    last = None
    while alerts := await pages(last):
        yield alerts
        last = alerts[-1]


def _row(alert: Alert) -> tuple[str, ...]:
    opened, ended, acknowledged = (
        "" if time_ns is None else datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
        for time_ns in (alert.opened_utc_ns, alert.ended_utc_ns, alert.acknowledged_utc_ns)
    )
    seen = (alert.id, alert.camera, opened, ended, alert.highest_severity, alert.highest_label, alert.rule or "")
    said = (acknowledged, alert.verdict or "", alert.note or "")
    return tuple(_harmless(text) for text in (*seen, f"{alert.score:.3f}", *said))


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _lines(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
