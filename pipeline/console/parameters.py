"""Parameters and bodies of requests, and JSON responses."""

from typing import TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipeline.console.body import blocks

T = TypeVar("T")
MAX_BODY_BYTES = 4096  # except uploads
BODY_TIMEOUT_S = 10.0  # for the complete body
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000


def json_response(content: object) -> Response:
    """Return a JSON response."""
    return Response(msgspec.json.encode(content), media_type="application/json")


def limit_of(request: Request) -> int:
    """Return the query parameter `limit`."""
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_LIMIT and len(text) <= 6):
        raise HTTPException(400, f"limit {text[:100]!r}; must be 1 to {MAX_LIMIT}")
    return int(text)


def one_of(request: Request, key: str, allowed: tuple[str, ...]) -> str:
    """Return a query parameter, by default the first allowed value."""
    value = request.query_params.get(key, allowed[0])
    if value not in allowed:
        raise HTTPException(400, f"{key} {value[:100]!r}; must be one of {', '.join(allowed)}")
    return value


async def body_of(request: Request, kind: type[T], expected: str, most_bytes: int = MAX_BODY_BYTES) -> T:
    """Return the body as an object of this type; an error says what was expected."""
    content = b""
    async for block in blocks(request, BODY_TIMEOUT_S):
        content += block
        if len(content) > most_bytes:
            raise HTTPException(413, f"body too large; must have at most {most_bytes} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise HTTPException(400, f"invalid body ({error}); expected JSON with {expected}") from error
