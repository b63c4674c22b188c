"""A browser's part of Web Push: its keys, and what it does with a message that a push service hands it."""

import base64
import json
from typing import Any

import http_ece
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02

from pipeline.sinks.push_files import PushKeys, PushSubscription, encoded
from support.receiver import Receiver, Request


class PushBrowser:
    """A browser that subscribed at a push service, which is a Receiver with TLS."""

    def __init__(self, service: Receiver, name: str = "browser") -> None:
        self.service = service
        self.path = f"/send/{name}-s3cr3tT0ken"
        self._key, self._auth = ec.generate_private_key(ec.SECP256R1()), name.encode().ljust(16)[:16]
        point = self._key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        endpoint = f"https://localhost:{service.port}{self.path}"
        self.subscription = PushSubscription(endpoint, PushKeys(encoded(point), encoded(self._auth)))

    @property
    def content(self) -> dict[str, Any]:
        """The subscription as a browser posts it."""
        content: dict[str, Any] = msgspec.to_builtins(self.subscription)
        return content

    @property
    def requests(self) -> list[Request]:
        return [request for request in self.service.requests if request.path == self.path]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What it was sent and the service accepted."""
        return [self.decrypted(request) for request in self.requests if request.answer in (200, 201, 204)]

    def decrypted(self, request: Request) -> dict[str, Any]:
        text = http_ece.decrypt(request.body, private_key=self._key, auth_secret=self._auth, version="aes128gcm")
        message: dict[str, Any] = json.loads(text)
        return message


def vapid_claims(request: Request, key: str) -> dict[str, Any]:
    """The claims of a request's token, whose signature is that of the site's key."""
    header = request.headers["Authorization"]
    assert Vapid02.verify(header)
    token, shown = header.removeprefix("vapid t=").split(",k=")
    assert shown == key
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
