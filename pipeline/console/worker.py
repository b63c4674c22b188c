"""The console's worker process: sends heartbeats, and announces the console's URL."""

import threading

from pipeline import stdio
from pipeline.config.console import Address
from pipeline.console.accounts import load_accounts
from pipeline.console.certificate import load
from pipeline.console.server import run_console
from pipeline.runtime.control import Control
from pipeline.runtime.heartbeat import HeartbeatSender
from pipeline.runtime.process import finish_startup
from pipeline.telemetry import health
from pipeline.telemetry.metrics import WorkerMetrics
from pipeline.transport.bind_retry import listen_when_free
from pipeline.transport.endpoints import Endpoints


def run(control: Control, stop: threading.Event, served: Address | None = None) -> None:
    """Run until `stop` is set."""
    config, endpoints = control.config, Endpoints()
    # Before the first heartbeat, which reports a successful start.
    load_accounts(config)
    if config.console.tls is not None:
        load(config.console.tls)
    own = WorkerMetrics("console")
    finish_startup(stop)
    with HeartbeatSender(endpoints.heartbeat, own, served, run=control.run):
        listener = listen_when_free(
            "console", config.console.host, config.console.port, stop, own.listening.labels("console")
        )
        if listener is None:
            return
        run_console(
            config,
            endpoints.live,
            listener,
            metrics=lambda: health.published(config.metrics_address_path),
            ready=lambda url: stdio.announce(f"console: {url}"),
            stop=stop,
            own=own,
            changes=control.changes,
        )
