"""Request handlers of Web Push: which browsers asked for notifications while no tab of the console is open."""

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipeline.config.models import Config
from pipeline.config.sinks import PushSinkConfig
from pipeline.console.accounts import LOCAL, Accounts
from pipeline.console.parameters import body_of, json_response
from pipeline.console.security import user_of
from pipeline.console.site import Site
from pipeline.sinks.push_endpoints import check_endpoint
from pipeline.sinks.push_files import MAX_BROWSERS, PushFiles, PushSubscription, public_key


class PushKey(msgspec.Struct, frozen=True):
    """Reply with the key for which a browser subscribes; null: the site has no sink of type push."""

    key: str | None


class PushEnd(msgspec.Struct, frozen=True):
    """Request to end a subscription."""

    endpoint: str


class PushHandlers:
    """Handlers of the endpoints below `/push`."""

    _site: Site
    _accounts: Accounts | None

    async def push_key(self, _: Request) -> Response:
        """Return the site's public key."""
        if self._site.config.push is None:
            return json_response(PushKey(None))
        key = await run_in_threadpool(PushFiles(self._site.config.run_dir).key)
        return json_response(PushKey(public_key(key)))

    async def push_subscribe(self, request: Request) -> Response:
        """Store a browser's subscription, or store it again."""
        expected = "endpoint: a URL, keys: {p256dh, auth}"
        subscription = await body_of(request, PushSubscription, expected)
        _check(subscription, self._entry())
        user, accounts = user_of(request), self._accounts
        if accounts is not None and accounts.users.get(user.name) != user:
            raise HTTPException(403, f"user {user.name!r} is not in the users file, with which notifications end")
        files = PushFiles(self._site.config.run_dir)
        if not await run_in_threadpool(files.add, subscription, user.digest, user.cameras):
            raise HTTPException(409, f"too many browsers; at most {MAX_BROWSERS} are sent notifications")
        return Response(status_code=204)

    async def push_unsubscribe(self, request: Request) -> Response:
        """Remove a browser's subscription."""
        given = await body_of(request, PushEnd, "endpoint: a URL")
        await run_in_threadpool(PushFiles(self._site.config.run_dir).remove, given.endpoint)
        return Response(status_code=204)

    def _entry(self) -> PushSinkConfig:
        entry = self._site.config.push
        if entry is None:
            raise HTTPException(404, "the site has no sink of type push")
        return entry


def end_old_subscriptions(config: Config, accounts: Accounts | None) -> None:
    """Remove the subscriptions of users who are not, or not any more, what they were.  Raise StoreError."""
    users = [LOCAL] if accounts is None else accounts.users.values()
    PushFiles(config.run_dir).remove_of_others({user.digest for user in users})


def _check(subscription: PushSubscription, entry: PushSinkConfig) -> None:
    try:
        check_endpoint(subscription.endpoint, entry.places)
    except ValueError as error:
        raise HTTPException(400, f"endpoint: {error}") from error
    try:
        _ = subscription.public_key, subscription.auth
    except ValueError as error:
        raise HTTPException(400, f"keys: {error}") from error
