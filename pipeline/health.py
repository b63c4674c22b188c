"""`/metrics`, `/healthz` and `/readyz` at one address, for Prometheus and for whatever watches processes.

In: a registry, and who says what is not ready.  Out: an HTTP server in threads of its own.  `/healthz` answers 200 as
long as the process can answer; `/readyz` 200, or 503 with what does not do its work.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, start_http_server

from pipeline.config import Address
from pipeline.errors import DasnetError

NotReady = Callable[[], list[str]]


def serve(address: Address, registry: CollectorRegistry, not_ready: NotReady) -> int:
    """The port.  Raises DasnetError where it cannot be used."""
    try:
        server, _ = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise DasnetError(
            f"metrics: port {address.port} on {address.host} cannot be used ({error.strerror}); "
            "allowed: another metrics.port, or 0 for any free one"
        ) from error
    metrics: Any = server.get_app()
    server.set_app(_with_health(metrics, not_ready))
    return server.server_port


def published(path: Path) -> str | None:
    """The URL of the running program's metrics; None where no program runs."""
    try:
        return path.read_text(encoding="utf-8")
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
