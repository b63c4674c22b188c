"""Connections to push services: only to public addresses, whatever a name resolves to."""

import ipaddress
import socket
from collections.abc import Collection, Iterable

import anyio
import httpcore


class PushNetwork(httpcore.AnyIOBackend):
    """Connects to public addresses only, but for the services that the site names; raises httpcore.ConnectError."""

    def __init__(self, services: Collection[str]) -> None:
        self._services = services

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers.  The name was resolved once: it cannot change in between."""
        if f"{host.lower()}:{port}" in self._services:
            return await super().connect_tcp(host, port, timeout, local_address, socket_options)
        failure = httpcore.ConnectError("has no address")
        for address in await _addresses(host, port):
            if not _is_public(address):
                raise httpcore.ConnectError("has an address that is not public")
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
        raise failure


async def _addresses(host: str, port: int) -> list[str]:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError(f"cannot be resolved ({error.strerror})") from error
    return list(dict.fromkeys(address[0] for *_, address in found))


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    within = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (within or ip).is_global
