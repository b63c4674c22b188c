"""Web Push sink: notifications of browsers in which no tab of the console is open.

In: events from the outbox, and the browsers that subscribed.  Out: one encrypted message per event and browser
(RFC 8291), sent to the push service that the browser chose, which cannot read it; it knows the site by its key (VAPID,
RFC 8292).  All browsers at once, so that one whose service hangs delays no other; those that have an event are not sent
it again when the outbox tries again for the others.
"""

import asyncio
import hashlib
import ssl
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import http_ece
import httpcore
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02

from pipeline.config.sinks import PushSinkConfig
from pipeline.errors import StoreError
from pipeline.sinks.filters import event_filter
from pipeline.sinks.push_endpoints import check_endpoint, place_of
from pipeline.sinks.push_files import PushFiles, PushSubscription
from pipeline.sinks.push_network import PushNetwork
from pipeline.sinks.sink import RefusedError, Sink, SinkError
from pipeline.sinks.wording import title
from pipeline.types import Event, Severity

EXPIRES_S = 3600.0  # the alert waits on the page
TOKEN_S = 12 * 3600  # a day at most, by RFC 8292
TIMEOUT_S = 10.0
LONGEST_WAIT_S = 60.0  # between two tries of one browser, unless its service asks for more
GONE = (404, 410)
RETRIED = (408, 425, 429)

log = structlog.get_logger()


class PushMessage(msgspec.Struct, frozen=True):
    """What the service worker shows."""

    title: str
    time_utc_ns: int
    tag: str  # a newer message of the same replaces the one before
    path: str  # of the page that a click opens
    is_alarm: bool


class _Result(NamedTuple):
    """What came of the events for one browser."""

    browser: PushSubscription
    outcome: Literal["accepted", "later", "gone", "refused"]
    reason: str = ""


class _Wait(NamedTuple):
    until_s: float  # of the monotonic clock
    failures: int  # in a row
    reason: str  # of the last


class PushSink(Sink):
    """Push to every browser that subscribed.  Of one that is gone the subscription is removed."""

    batch_size = 2000  # of all kinds: what the others get while one browser's service fails
    expires_s = EXPIRES_S
    longest_wait_s = 10.0

    def __init__(self, entry: PushSinkConfig, files: PushFiles) -> None:
        super().__init__(entry.name or entry.type, event_filter(entry))
        self._entry = entry
        self._files = files
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._context: ssl.SSLContext | None = None
        self._accepted: set[tuple[str, str]] = set()  # endpoint and event, of those that are sent again
        self._waits: dict[str, _Wait] = {}  # by endpoint

    def open(self) -> None:
        """Read the site's key.  Raise SinkError."""
        try:
            self._key = self._files.key()
        except StoreError as error:
            raise SinkError(str(error)) from error
        self._context = ssl.create_default_context()
        try:
            if self._entry.ca is not None:
                self._context.load_verify_locations(self._entry.ca)
        except (OSError, ssl.SSLError) as error:
            raise SinkError(f"{self._entry.ca}: cannot be used as a certificate authority ({error})") from error

    def send(self, events: Sequence[Event]) -> None:
        """Push to every browser.  Raise SinkError where one is to be tried again, RefusedError where all refuse."""
        results = asyncio.run(self._push_to_all(events))
        outcomes = {result.outcome for result in results}
        for result in results:
            # What another browser's service accepts is no fault of the message, nor of the site's key or clock.
            if result.outcome == "gone" or (result.outcome == "refused" and "accepted" in outcomes):
                self._remove(result)
        if "later" in outcomes:
            later = [result for result in results if result.outcome == "later"]
            raise SinkError(f"{len(later)} of {len(results)} browsers not reached: {later[0].reason}")
        if outcomes and outcomes <= {"refused", "gone"} and "refused" in outcomes:
            raise RefusedError("; ".join(sorted({each.reason for each in results if each.outcome == "refused"})))
        self._accepted.clear()

    def close(self) -> None:
        """Forget the key; every push has a connection of its own."""
        self._key = None

    def _remove(self, result: _Result) -> None:
        log.warning("push subscription removed", sink=self.name, reason=result.reason)
        self._waits.pop(result.browser.endpoint, None)
        try:
            self._files.remove(result.browser.endpoint)
        except StoreError as error:
            raise SinkError(str(error)) from error

    async def _push_to_all(self, events: Sequence[Event]) -> list[_Result]:
        network = PushNetwork(self._entry.places)
        # Without a limit of its own, the pool would let ten that hang hold up the others.
        connections = httpcore.AsyncConnectionPool(self._context, max_connections=None, network_backend=network)
        async with connections as pool:
            due = [
                (each.subscription, own)
                for each in self._files.subscribed()
                if (own := [event for event in events if each.cameras is None or event.camera in each.cameras])
            ]
            return await asyncio.gather(*(self._push(pool, browser, own) for browser, own in due))

    async def _push(
        self, pool: httpcore.AsyncConnectionPool, browser: PushSubscription, events: Sequence[Event]
    ) -> _Result:
        """Send one browser the events that it has not, in order, up to the first that is not accepted."""
        place, wait = place_of(browser.endpoint), self._waits.get(browser.endpoint)
        for event in events:
            if (browser.endpoint, event.id) in self._accepted:
                continue
            if wait is not None and time.monotonic() < wait.until_s:
                return _Result(browser, "later", wait.reason)
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    status, retry_after_s = await self._post(pool, browser, event)
            except (TimeoutError, httpcore.TimeoutException):
                return self._later(browser, f"{place} did not answer within {TIMEOUT_S:g} s")
            except (httpcore.NetworkError, httpcore.ProtocolError) as error:
                return self._later(browser, f"{place}: {error or type(error).__name__}")
            except ValueError as error:  # no longer allowed by the configuration
                return _Result(browser, "gone", f"{place}: endpoint {error}")
            if status >= 500 or status in RETRIED:
                return self._later(browser, f"{place} answered {status}", retry_after_s)
            if not 200 <= status < 300:
                return _Result(browser, "gone" if status in GONE else "refused", f"{place} answered {status}")
            self._waits.pop(browser.endpoint, None)
            self._accepted.add((browser.endpoint, event.id))
        return _Result(browser, "accepted")

    def _later(self, browser: PushSubscription, reason: str, retry_after_s: float = 0.0) -> _Result:
        before = self._waits.get(browser.endpoint)
        failures = 1 if before is None else before.failures + 1
        wait_s = max(min(retry_after_s, EXPIRES_S), min(0.25 * 2.0**failures, LONGEST_WAIT_S))
        self._waits[browser.endpoint] = _Wait(time.monotonic() + wait_s, failures, reason)
        return _Result(browser, "later", reason)

    async def _post(
        self, pool: httpcore.AsyncConnectionPool, browser: PushSubscription, event: Event
    ) -> tuple[int, float]:
        """Return the status of the answer, and for how many seconds the service asks to wait.  Follow no redirect."""
        check_endpoint(browser.endpoint, self._entry.places)
        async with pool.stream(
            "POST", browser.endpoint, headers=self._headers(browser, event), content=encrypted(browser, event)
        ) as answer:
            return answer.status, _retry_after_s(answer.headers)

    def _headers(self, browser: PushSubscription, event: Event) -> dict[bytes | str, bytes | str]:
        parts = urlsplit(browser.endpoint)
        claims = {"aud": f"https://{parts.netloc}", "sub": self._entry.contact, "exp": int(time.time()) + TOKEN_S}
        return {
            **Vapid02(self._key).sign(claims),
            "Content-Type": "application/octet-stream",
            "Content-Encoding": "aes128gcm",
            "TTL": f"{EXPIRES_S:.0f}",
            "Urgency": "high",
            "Topic": hashlib.sha256(_tag(event).encode()).hexdigest()[:32],  # replaces an older one on its way
        }


def encrypted(browser: PushSubscription, event: Event) -> bytes:
    """Return the message of an event, encrypted for one browser.  Raise ValueError for keys that are none."""
    path = f"/alert/{event.alert}" if event.alert is not None else "/"
    message = PushMessage(title([event]), event.time_utc_ns, _tag(event), path, event.severity is Severity.ALARM)
    once = ec.generate_private_key(ec.SECP256R1())
    sealed: bytes = http_ece.encrypt(
        msgspec.json.encode(message), private_key=once, dh=browser.public_key, auth_secret=browser.auth
    )
    return sealed


def _tag(event: Event) -> str:
    return event.alert or event.id


def _retry_after_s(headers: Sequence[tuple[bytes, bytes]]) -> float:
    text = {name.lower(): value for name, value in headers}.get(b"retry-after", b"").decode("ascii", "replace").strip()
    if text.isdigit():
        return float(text[:9])
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:  # none, or nonsense
        return 0.0
