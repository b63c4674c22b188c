"""The body of a request, which has to come: a sender that stalls is given up."""

import asyncio
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import Request

GAP_S = 10.0  # without a byte


async def blocks(request: Request, total_s: float) -> AsyncIterator[bytes]:
    """Yield what comes.  Raise HTTPException where nothing does for GAP_S, or not all of it within `total_s`."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + total_s
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout_at(min(end_s, loop.time() + GAP_S)):
                block = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, "the body of the request did not come in time", {"connection": "close"}) from None
        yield block
