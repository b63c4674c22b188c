"""To which addresses notifications are pushed: those of push services in public, and those that the site names.

A browser says where its notifications go, and so may anybody who is logged in.  Otherwise this host could be made to
send requests into the networks that it is in.
"""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

MAX_ENDPOINT_LENGTH = 2000
HTTPS_PORT = 443
_URL = re.compile(r"[!-~]+")
_PUBLIC_NAME = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)


def place_of(endpoint: str) -> str:
    """Return the host and port of an endpoint, the only part of it that may be shown.  Raise ValueError for no URL."""
    parts = urlsplit(endpoint)
    return f"{parts.hostname}:{parts.port or HTTPS_PORT}"


def check_endpoint(endpoint: str, services: Collection[str]) -> None:
    """Raise ValueError, without quoting the endpoint, where nothing may be sent to it.

    Args:
        endpoint: a URL.
        services: `HOST:PORT` of push services that need not be public.
    """
    try:
        parts, place = urlsplit(endpoint), place_of(endpoint)
    except ValueError:
        raise ValueError("must be a URL") from None
    if len(endpoint) > MAX_ENDPOINT_LENGTH or not _URL.fullmatch(endpoint):
        raise ValueError(f"must be a URL of at most {MAX_ENDPOINT_LENGTH} characters without blanks")
    if parts.scheme != "https" or "@" in parts.netloc or "#" in endpoint:
        raise ValueError("must be https://HOST/PATH")
    is_public = _PUBLIC_NAME.fullmatch(parts.hostname or "") is not None and place.endswith(f":{HTTPS_PORT}")
    if not is_public and place not in services:
        raise ValueError("must be on a public host, or on one of sinks[].services")
