"""Webhook sink: HTTP POST of CloudEvents 1.0, signed with HMAC-SHA256.

In: events from the outbox.  Out: one request per event (structured mode), or per batch (batch mode, a JSON list).  Any
answer of 2xx accepts the events.  408, 425, 429, 5xx and no answer in time are retried; other answers refuse them.
"""

import hashlib
import hmac
import ssl
import time
from collections.abc import Sequence

import httpx
import msgspec

from pipeline.config.sinks import WebhookSinkConfig
from pipeline.sinks.cloudevents import cloud_event
from pipeline.sinks.filters import event_filter
from pipeline.sinks.sink import RefusedError, Sink, SinkError
from pipeline.types import Event

SIGNATURE = "X-Hub-Signature-256"
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
RETRIED = (408, 425, 429)  # too slow, too early, too many: they may succeed later
MAX_ANSWER_BYTES = 65536  # read so that the connection can be used again; of longer answers the connection is closed


class WebhookSink(Sink):
    """Post events to one address over a kept connection."""

    def __init__(self, entry: WebhookSinkConfig) -> None:
        super().__init__(entry.name or entry.type, event_filter(entry))
        self.batch_size = entry.batch_size
        self._entry = entry
        self._client: httpx.Client | None = None

    def open(self) -> None:
        """Prepare the connection, which the first request makes.  Raise SinkError."""
        context: ssl.SSLContext | bool = False  # plain HTTP, which no redirect leaves
        try:
            if self._entry.url.startswith("https:"):
                context = ssl.create_default_context(cafile=self._entry.ca)
        except (OSError, ssl.SSLError) as error:
            raise SinkError(f"{self._entry.ca}: cannot be used as a certificate authority ({error})") from error
        self._client = httpx.Client(timeout=self._entry.timeout_s, verify=context)

    def send(self, events: Sequence[Event]) -> None:
        """Post events, and wait until they are accepted.  Raise SinkError, or RefusedError."""
        assert self._client is not None
        wrapped = [cloud_event(event) for event in events]
        is_batch = self._entry.batch_size > 1
        body = msgspec.json.encode(wrapped if is_batch else wrapped[0])
        headers = {"Content-Type": BATCH if is_batch else STRUCTURED}
        if self._entry.secret is not None:
            headers[SIGNATURE] = signature(self._entry.secret, body)
        status = self._post(self._client, body, headers)
        if 200 <= status < 300:
            return
        reason = f"{self._entry.host} answered {status} {httpx.codes.get_reason_phrase(status)}"
        if status >= 500 or status in RETRIED:
            raise SinkError(reason)
        raise RefusedError(f"{reason}; must be 2xx")

    def _post(self, client: httpx.Client, body: bytes, headers: dict[str, str]) -> int:
        """Return the status of the answer.  No error quotes the address, which is a secret but for its host."""
        deadline_s = time.monotonic() + self._entry.timeout_s
        try:
            with client.stream("POST", self._entry.url, content=body, headers=headers) as answer:
                received = 0
                for chunk in answer.iter_raw():
                    received += len(chunk)
                    if received > MAX_ANSWER_BYTES or time.monotonic() > deadline_s:
                        break
                return answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SinkError(f"{self._entry.host}: {type(error).__name__}: {error}") from None

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


def signature(secret: str, body: bytes) -> str:
    """Return the signature of a body: `sha256=` and the HMAC-SHA256 in hexadecimal digits."""
    return "sha256=" + hmac.new(secret.encode(errors="surrogateescape"), body, hashlib.sha256).hexdigest()
