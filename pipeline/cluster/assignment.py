"""Which host processes which camera: rendezvous hashing weighted by capacity.  Pure.

Every host computes the same assignment from the same hosts.  When a host leaves, only its cameras move; when one
joins, cameras move to it only (Schindelhauer & Schomaker, Weighted distributed hash tables, SPAA 2005: the logarithmic
method).
"""

import math
from collections.abc import Mapping
from hashlib import blake2b

_HASHES = 1 << 64


def assigned(cameras: Mapping[str, str | None], capacities: Mapping[str, float]) -> dict[str, str]:
    """Return the host of each camera; a camera that no host may process is left out.

    Args:
        cameras: ids, each with the only host that may process it, or None.
        capacities: of the hosts that are there, greater than 0.
    """
    chosen = {}
    for camera, pinned in cameras.items():
        candidates = capacities if pinned is None else capacities.keys() & {pinned}
        if candidates:
            chosen[camera] = max(candidates, key=lambda host: (_score(camera, host, capacities[host]), host))
    return chosen


def _score(camera: str, host: str, capacity: float) -> float:
    """Return the score of a host: the highest of several is a host's with a probability proportional to capacity."""
    digest = blake2b(f"{host}/{camera}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / _HASHES
    return -capacity / math.log(uniform)
