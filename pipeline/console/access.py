"""Request handlers of log-in, session and audit log."""

from typing import TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipeline.config.users import UserRole
from pipeline.console.accounts import SESSION_COOKIE, Accounts, TooManyAttemptsError, session_of
from pipeline.console.audit import record_action
from pipeline.console.parameters import body_of, json_response, limit_of
from pipeline.console.search import action_filter
from pipeline.console.security import address_of, user_of
from pipeline.console.site import Site
from pipeline.console.view import actor_of
from pipeline.store.actions import Action, ActionKind, Actor

T = TypeVar("T")


class Login(msgspec.Struct, frozen=True):
    """Request to log in; `user` is needed only where users have names."""

    password: str
    user: str = ""


class Session(msgspec.Struct, frozen=True):
    """Reply with who asks; `user` is empty where nobody logs in, `cameras` null: all."""

    user: str
    role: UserRole
    cameras: list[str] | None


class Actions(msgspec.Struct, frozen=True):
    """Reply with actions."""

    actions: list[Action]


class AccessHandlers:
    """Handlers of the endpoints `/login`, `/logout`, `/session` and `/audit`."""

    _site: Site
    _accounts: Accounts | None

    async def login(self, request: Request) -> Response:
        """Open a session."""
        accounts = self._accounts
        if accounts is None:
            raise HTTPException(404, "this console has no log-in")
        given = await body_of(request, Login, "user: a string, password: a string")
        address = address_of(request)
        try:
            opened = await accounts.log_in(given.user, given.password, address)
        except TooManyAttemptsError as error:
            text = f"too many wrong passwords; try again in {error.wait_s} s"
            raise HTTPException(429, text, {"retry-after": str(error.wait_s)}) from error
        if opened is None:
            # A name that no user has may be a password that was typed into the wrong field.
            name = given.user if given.user in accounts.users else ""
            await self.record(Actor(name, address), ActionKind.LOG_IN_FAILED)
            raise HTTPException(401, "wrong user or password" if accounts.has_names else "wrong password")
        user, token = opened
        await self.record(Actor(user.name, address), ActionKind.LOG_IN)
        response = Response(status_code=204)
        response.set_cookie(
            SESSION_COOKIE,
            token,
            max_age=round(accounts.sessions.session_s),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def logout(self, request: Request) -> Response:
        """Close the session."""
        if self._accounts is not None:
            self._accounts.sessions.end(session_of(request.headers))
            await self.record(actor_of(request), ActionKind.LOG_OUT)
        response = Response(status_code=204)
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
        return response

    async def session(self, request: Request) -> Response:
        """Return who asks."""
        user = user_of(request)
        return json_response(Session(user.name, user.role, None if user.cameras is None else sorted(user.cameras)))

    async def audit(self, request: Request) -> Response:
        """Return the newest actions that are asked for, or those listed after the one with id `after`."""
        limit, wanted, after = limit_of(request), action_filter(request), request.query_params.get("after")
        found = await run_in_threadpool(self._site.stored, lambda reader: reader.search_actions(wanted, limit, after))
        return json_response(Actions(found))

    async def record(self, by: Actor, kind: ActionKind, detail: str = "") -> None:
        """Store an action that is no change of the store."""
        await record_action(self._site, by, kind, detail)
