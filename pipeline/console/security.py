"""What every request and answer must satisfy.

In: a request.  Out: the answer, with headers that keep the page from loading, or being framed by, anything foreign.

Without a password a request under another name than this machine's is refused: a foreign page that lets its own name
point to 127.0.0.1 (DNS rebinding) could else read all the console shows.  With one, any name will do, for only this
site's own pages carry the session.  What changes something must come from a page of this very console (CSRF).
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
OPEN_PATHS = ("/login", "/api/v1/login", "/healthz")  # without a session; and /static/, which holds no data


class Guard:
    """ASGI middleware, around everything."""

    def __init__(self, app: ASGIApp, password: Password | None) -> None:
        self._app = app
        self._password = password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            text = f"host {host[:100]!r} is not served; allowed: {', '.join(LOOPBACK)}"
            return JSONResponse({"error": text}, 421)
        if method not in ("GET", "HEAD") and not is_same_origin(headers):
            return JSONResponse({"error": "a request of a foreign page is refused; allowed: this console's own"}, 403)
        if self._password is None or path in OPEN_PATHS or path.startswith("/static/"):
            return None
        if self._password.sessions.is_open(session_of(headers)):
            return None
        if path.startswith("/api/"):
            return JSONResponse({"error": "no session; log in at /login"}, 401)
        return RedirectResponse("/login", 303)


def is_same_origin(headers: Headers) -> bool:
    """Browsers say from where they send what changes something; a program that says nothing is no browser."""
    origin = headers.get("origin")
    try:
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return False
    except ValueError:  # no address at all
        return False
    return headers.get("sec-fetch-site", "same-origin") == "same-origin"


def session_of(headers: Headers) -> str:
    """Return the token of a request's session; empty: it has none."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(SESSION_COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine, with any port."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  (raises where it is none)
    except ValueError:
        return False
    return parts.netloc == host and "@" not in host and parts.hostname in LOOPBACK
