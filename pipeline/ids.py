"""Identifiers derived from content, so that a replay gives the same ones."""

import hashlib

from ulid import ULID

from pipeline.types import FrameRef

ULID_LENGTH = 26  # characters


def track_ulid(camera: str, session: str, number: int, first: FrameRef) -> str:
    """Return the ULID of a camera's track `number`, first seen in frame `first`."""
    return derived_ulid(first.received_utc_ns, camera, session, "track", str(number))


def derived_ulid(time_utc_ns: int, *parts: str) -> str:
    """Return a ULID whose random part is a hash of `parts`: the same arguments give the same id."""
    time_ms = max(0, time_utc_ns // 1_000_000)
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return str(ULID.from_bytes(time_ms.to_bytes(6, "big") + digest[:10]))
