"""Who asks: the client behind trusted proxies, and whether the listener has room for a request of its connection.

In: a request as uvicorn hands it on.  Out: the same with the client's own address and scheme, or an answer of 503.
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
    """ASGI middleware, outermost."""

    def __init__(self, app: ASGIApp, listener: Listener, trusted: Sequence[Network]) -> None:
        self._app = app
        self._listener = listener
        self._trusted = trusted
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        host, port = scope["client"] or ("::", 0)  # none: it has gone already
        address = _address(host)
        is_proxy = self._trusts(address)
        headers = Headers(scope=scope)
        if is_proxy:
            scope["client"] = (self._client(address, headers.getlist("x-forwarded-for")), port)
            if headers.get("x-forwarded-proto", "").partition(",")[0].strip() == "https":
                scope["scheme"] = "https"
        elif "x-forwarded-for" in headers:
            self._tell(address)
        with self._listener.request((host, port), is_shared=is_proxy) as admitted:
            answer = JSONResponse({"error": "too many requests are under way"}, 503, {"retry-after": "1"})
            await (self._app if admitted else answer)(scope, receive, send)

    def _trusts(self, address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in self._trusted)

    def _client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the last address that is no proxy's: each proxy appends whom it was asked by."""
        client = peer
        for named in reversed(",".join(forwarded).split(",")):
            if not self._trusts(client):
                break
            try:
                client = _address(_without_port(named.strip()))
            except ValueError:  # no address: the proxy that wrote it is the last that is known
                break
        return client

    def _tell(self, proxy: str) -> None:
        if not self._has_warned:  # once: anybody can send this header
            self._has_warned = True
            structlog.get_logger().warning(
                "console is asked through a proxy that is not in console.trusted_proxies, so that all its clients"
                " share one limit on wrong passwords",
                proxy=proxy,
            )


def _address(text: str) -> str:
    """Raise ValueError where it is none.  An IPv4 address that came over an IPv6 socket is an IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
