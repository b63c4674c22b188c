"""Access control and security headers for every request and response.

Without a password only requests to a loopback host name are accepted, which prevents DNS rebinding: a foreign page
whose name resolves to 127.0.0.1 could otherwise read the console.  With a password any host name is accepted, since
only this site's pages carry the session cookie.  Requests that change state must have this console's origin (CSRF).
"""

from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.config.models import LOOPBACK
from pipeline.console.password import Password

HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SESSION_COOKIE = "dasnet_session"
OPEN_PATHS = ("/login", "/api/v1/login", "/healthz")  # no session needed; nor for /static/


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, password: Password | None) -> None:
        self._app = app
        self._password = password

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

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._password is None and not is_loopback(host):
            text = f"host {host[:100]!r} is not served; must be one of {', '.join(LOOPBACK)}"
            return JSONResponse({"error": text}, 421)
        if method not in ("GET", "HEAD") and not is_same_origin(headers):
            return JSONResponse({"error": "cross-origin request; must come from this console"}, 403)
        if self._password is None or path in OPEN_PATHS or path.startswith("/static/"):
            return None
        if self._password.sessions.is_open(session_of(headers)):
            return None
        if path.startswith("/api/"):
            return JSONResponse({"error": "no session; must log in at /login"}, 401)
        return RedirectResponse("/login", 303)


def is_same_origin(headers: Headers) -> bool:
    """Return whether a request comes from this origin; without origin headers it does not come from a browser."""
    origin = headers.get("origin")
    try:
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return False
    except ValueError:  # not a URL
        return False
    return headers.get("sec-fetch-site", "same-origin") == "same-origin"


def session_of(headers: Headers) -> str:
    """Return the token of a request's session, or an empty string."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(SESSION_COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def is_loopback(host: str) -> bool:
    """Return whether a Host header names the loopback interface, with any port."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 - raises ValueError for an invalid port
    except ValueError:
        return False
    return parts.netloc == host and "@" not in host and parts.hostname in LOOPBACK
