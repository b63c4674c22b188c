"""Rate limit on wrong passwords per client address or user: a burst, then one attempt per interval."""

import ipaddress
import time
from collections.abc import Callable

BURST = 5
USER_BURST = 100  # of one user, from all addresses together
REFILL_S = 30.0  # until another attempt is allowed
MAX_CLIENTS = 10_000  # most recent ones
IPV6_PREFIX_BITS = 64  # one client controls a whole prefix


class Attempts:
    """A token bucket per client."""

    def __init__(self, burst: int = BURST, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst_s = burst * REFILL_S
        self._clock = clock
        self._full_s: dict[str, float] = {}  # by client: when its bucket is full again

    def take(self, address: str) -> float:
        """Take an attempt of an address or user; return 0 where it is allowed, otherwise how long to wait, in s.

        An attempt counts as wrong until `refund`.
        """
        client, now_s = _client(address), self._clock()
        full_s = max(now_s, self._full_s.pop(client, now_s)) + REFILL_S
        wait_s = full_s - now_s - self._burst_s
        self._full_s[client] = full_s if wait_s <= 0 else full_s - REFILL_S
        if len(self._full_s) > MAX_CLIENTS:
            del self._full_s[next(iter(self._full_s))]
        return max(0.0, wait_s)

    def refund(self, address: str) -> None:
        """Give an attempt back, after a correct password."""
        client = _client(address)
        if client in self._full_s:
            self._full_s[client] -= REFILL_S


def _client(address: str) -> str:
    if ":" not in address:
        return address
    return str(ipaddress.ip_network(f"{address.partition('%')[0]}/{IPV6_PREFIX_BITS}", strict=False))
