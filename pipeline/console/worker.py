"""The console as a worker: says where it is, and that it lives."""

import threading

from pipeline import health
from pipeline.config import Address, Config
from pipeline.console.password import load_password
from pipeline.console.server import bind, run_console
from pipeline.metrics import WorkerMetrics
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.heartbeat import Heart
from pipeline.workers import settle


def run(config: Config, stop: threading.Event, served: Address | None = None) -> None:
    endpoints = Endpoints()
    host = config.console.host
    listener = bind(host, config.console.port)  # before the first heartbeat, which says that the worker could start
    load_password(config)  # the same
    own = WorkerMetrics("console")
    settle(stop)
    with Heart(endpoints.heartbeat, own, served):
        run_console(
            config,
            endpoints.live,
            listener,
            metrics=health.published(config.metrics_address_path),
            ready=lambda port: print(f"console: http://{host}:{port}/", flush=True),
            stop=stop,
            refused=own.refused,
        )
