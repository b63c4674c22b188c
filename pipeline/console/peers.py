"""Resolve the client behind trusted proxies, and limit concurrent requests.

A request is passed on with the client's address and scheme, or answered with status 503.
"""

import ipaddress
from collections.abc import Sequence

import structlog
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.transport.listener import Listener

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peers:
    """Outermost ASGI middleware."""

    def __init__(self, app: ASGIApp, listener: Listener, trusted: Sequence[Network]) -> None:
        self._app = app
        self._listener = listener
        self._trusted = trusted
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return
        host, port = scope["client"] or ("::", 0)  # None: it has disconnected
        address = _address(host)
        is_proxy = scope["is_from_proxy"] = self._trusts(address)
        headers = Headers(scope=scope)
        if is_proxy:
            scope["client"] = (self._client(address, headers.getlist("x-forwarded-for")), port)
            if headers.get("x-forwarded-proto", "").partition(",")[0].strip() == "https":
                scope["scheme"] = "https"
        elif "x-forwarded-for" in headers:
            self._warn(address)
        with self._listener.request((host, port), is_shared=is_proxy) as admitted:
            busy = JSONResponse({"error": "too many concurrent requests"}, 503, {"retry-after": "1"})
            await (self._app if admitted else busy)(scope, receive, send)

    def _trusts(self, address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in self._trusted)

    def _client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the last address that is not a trusted proxy's; each proxy appends the address of its client."""
        client = peer
        for named in reversed(",".join(forwarded).split(",")):
            if not self._trusts(client):
                break
            try:
                client = _address(_without_port(named.strip()))
            except ValueError:  # not an address: take the proxy that wrote it
                break
        return client

    def _warn(self, proxy: str) -> None:
        if not self._has_warned:  # once: any client can send this header
            self._has_warned = True
            structlog.get_logger().warning(
                "request through a proxy that is not in console.trusted_proxies: its clients share one limit on wrong"
                " passwords",
                proxy=proxy,
            )


def _address(text: str) -> str:
    """Return an address in canonical form, IPv4 if mapped into IPv6; raise ValueError where it is not an address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
