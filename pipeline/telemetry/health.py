"""`/metrics`, `/healthz` and `/readyz` at one address, for Prometheus and for process supervision.

In: a registry, and a function that returns what is not ready.  Out: an HTTP server in its own threads.  `/healthz`
answers 200 while the process is alive; `/readyz` 200, or 503 with the reasons.
"""

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from pipeline import stdio
from pipeline.config.console import Address
from pipeline.transport.bind_retry import listen_when_free
from pipeline.transport.listener import Listener, url

NotReady = Callable[[], list[str]]
Bound = Callable[[str], None]


def announce(address: str) -> None:
    """Print the address of the metrics."""
    stdio.announce(f"metrics: {address}")


def serve(
    address: Address,
    registry: CollectorRegistry,
    not_ready: NotReady,
    stop: threading.Event,
    bound: Bound = announce,
) -> None:
    """Serve in a thread as soon as the address can be bound, and call `bound` with the URL then."""
    app = _with_health(make_wsgi_app(registry), not_ready)

    def run() -> None:
        listener = listen_when_free("metrics", address.host, address.port, stop)
        if listener is not None:
            bound(url("http", address.host, listener.getsockname()[1], "/metrics"))
            _Server(listener, app).serve_forever()

    threading.Thread(target=run, name="metrics", daemon=True).start()


def published(path: Path) -> str | None:
    """Return the URL of the running program's metrics, or None where none runs."""
    try:
        return path.read_text(encoding="utf-8") or None
    except OSError:
        return None


def _with_health(metrics: WSGIApplication, not_ready: NotReady) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path not in ("/healthz", "/readyz"):
            return metrics(environ, start)
        faults = not_ready() if path == "/readyz" else []
        body: dict[str, object] = {"alive": True} if path == "/healthz" else {"ready": not faults, "not_ready": faults}
        start("503 Service Unavailable" if faults else "200 OK", [("Content-Type", "application/json")])
        return [json.dumps(body).encode()]

    return answer


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection; the listener limits their number and duration."""

    daemon_threads = True

    def __init__(self, listener: Listener, app: WSGIApplication) -> None:
        super().__init__(listener.getsockname()[:2], _QuietHandler, bind_and_activate=False)
        self.socket.close()
        self.socket: Listener = listener
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(app)

    def service_actions(self) -> None:
        self.socket.close_overdue()

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that disconnect before they have their answer."""
