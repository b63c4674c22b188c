"""Write down what people do that is no change of the store."""

import time

import structlog
from starlette.concurrency import run_in_threadpool

from pipeline.console.site import Site
from pipeline.errors import StoreError
from pipeline.store import actions
from pipeline.store.actions import ActionKind, Actor


async def record_action(site: Site, by: Actor, kind: ActionKind, detail: str = "", camera: str | None = None) -> None:
    """Store an action.  Nobody is kept from it where the store fails."""
    path = site.config.store_path
    try:
        await run_in_threadpool(actions.record, path, by, kind, time.time_ns(), camera=camera, detail=detail)
    except StoreError as error:
        structlog.get_logger().warning(
            "action not in the audit log", action=kind, user=by.user, address=by.address, reason=str(error)
        )
