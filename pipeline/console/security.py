"""Access control and security headers for every request and response.

A request that is let through has its user in `scope["user"]`, None only on the paths that are open to everyone.
Without a log-in only requests to a loopback host name are accepted, which prevents DNS rebinding: a foreign page
whose name resolves to 127.0.0.1 could otherwise read the console.  With one any host name is accepted, since
only this site's pages carry the session cookie.  Requests that change state must have this console's origin (CSRF).
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.config.console import LOOPBACK
from pipeline.config.users import User, UserRole
from pipeline.console.accounts import LOCAL, Accounts, NoRoleError

HEADERS = {
    "content-security-policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
OPEN_PATHS = ("/login", "/api/v1/login", "/healthz")  # no session needed; nor for /static/


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, accounts: Accounts | None) -> None:
        self._app = app
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return why a request is not let through, or None with its user in the scope."""
        host, path = headers.get("host", ""), scope["path"]
        scope["user"] = None
        if self._accounts is None and not is_loopback(host):
            text = f"host {host[:100]!r} is not served; must be one of {', '.join(LOOPBACK)}"
            return JSONResponse({"error": text}, 421)
        if scope["method"] not in ("GET", "HEAD") and not is_same_origin(headers):
            return JSONResponse({"error": "cross-origin request; must come from this console"}, 403)
        try:
            scope["user"] = self._user(scope, headers)
        except NoRoleError as error:
            return JSONResponse({"error": str(error)}, 403)
        if scope["user"] is not None or path in OPEN_PATHS or path.startswith("/static/"):
            return None
        if path.startswith("/api/"):
            return JSONResponse({"error": "no session; must log in at /login"}, 401)
        return RedirectResponse("/login", 303)

    def _user(self, scope: Scope, headers: Headers) -> User | None:
        if self._accounts is None:
            return LOCAL
        return self._accounts.user(headers, scope.get("is_from_proxy", False))


def user_of(request: Request) -> User:
    """Return who sends a request that needs a session.  Raise HTTPException where nobody does."""
    user: User | None = request.scope["user"]
    if user is None:
        raise HTTPException(401, "no session; must log in at /login")
    return user


def require(user: User, role: UserRole) -> None:
    """Raise HTTPException where a user may not do what needs this role."""
    if not user.role.may(role):
        raise HTTPException(403, f"needs the role {role}; {user.name} is {user.role}")


def address_of(request: Request) -> str:
    """Return the address from which a request comes."""
    return request.client.host if request.client else ""


def is_same_origin(headers: Headers) -> bool:
    """Return whether a request comes from this origin; without origin headers it does not come from a browser."""
    origin = headers.get("origin")
    try:
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return False
    except ValueError:  # not a URL
        return False
    return headers.get("sec-fetch-site", "same-origin") == "same-origin"


def is_loopback(host: str) -> bool:
    """Return whether a Host header names the loopback interface, with any port."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 - raises ValueError for an invalid port
    except ValueError:
        return False
    return parts.netloc == host and "@" not in host and parts.hostname in LOOPBACK
