"""Read the body of a request with timeouts, so that a stalled sender is disconnected."""

import asyncio
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import Request

IDLE_TIMEOUT_S = 10.0  # without a byte


async def blocks(request: Request, total_s: float) -> AsyncIterator[bytes]:
    """Yield the blocks of the body.

    Raises:
        HTTPException: Nothing arrived for IDLE_TIMEOUT_S, or the body was incomplete after `total_s`.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + total_s
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout_at(min(end_s, loop.time() + IDLE_TIMEOUT_S)):
                block = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(
                408, "timeout while waiting for the body of the request", {"connection": "close"}
            ) from None
        yield block
