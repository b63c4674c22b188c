"""Limit on wrong passwords by client address: a few at once, then one at a time, and nobody else waits for it."""

import ipaddress
import time
from collections.abc import Callable

AT_ONCE = 5
EACH_S = 30.0  # until one more may be tried
MAX_CLIENTS = 10_000  # that are remembered: the last ones
IPV6_PREFIX = 64  # of an address: what one client commands


class Attempts:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_s: dict[str, float] = {}  # client -> when it may try AT_ONCE again

    def take(self, address: str) -> float:
        """Return how long this client has to wait, in s; 0: it may try, which counts as wrong until `refund`."""
        client, now_s = _client(address), self._clock()
        full_s = max(now_s, self._full_s.pop(client, now_s)) + EACH_S
        wait_s = full_s - now_s - AT_ONCE * EACH_S
        self._full_s[client] = full_s if wait_s <= 0 else full_s - EACH_S
        if len(self._full_s) > MAX_CLIENTS:
            del self._full_s[next(iter(self._full_s))]
        return max(0.0, wait_s)

    def refund(self, address: str) -> None:
        """The password was right."""
        client = _client(address)
        if client in self._full_s:
            self._full_s[client] -= EACH_S


def _client(address: str) -> str:
    if ":" not in address:
        return address
    return str(ipaddress.ip_network(f"{address.partition('%')[0]}/{IPV6_PREFIX}", strict=False))
