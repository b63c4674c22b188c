"""The console's HTTP server: serves the pages and the API on a listener until it is stopped."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import structlog
import uvicorn

from pipeline.config.models import Config
from pipeline.console import certificate
from pipeline.console.accounts import Accounts, load_accounts
from pipeline.console.app import make_app
from pipeline.console.peers import Peers
from pipeline.console.push import end_old_subscriptions
from pipeline.console.site import MetricsAddress, Site, unknown
from pipeline.console.trial import Trials
from pipeline.errors import StoreError
from pipeline.runtime.control import Changes
from pipeline.telemetry.metrics import WorkerMetrics
from pipeline.transport.listener import Listener, url

STOP_S = 0.5  # for pending responses, before connections are aborted
SWEEP_S = 1.0  # between checks for overdue connections

Ready = Callable[[str], None]


def run_console(
    config: Config,
    live_endpoint: str,
    listener: Listener,
    *,
    metrics: MetricsAddress = unknown,
    ready: Ready | None = None,
    stop: threading.Event | None = None,
    own: WorkerMetrics | None = None,
    changes: Changes = tuple,
) -> None:
    """Serve until `stop` is set.

    Args:
        config: The site.
        live_endpoint: Where the track worker publishes live frames.
        listener: The listening socket; closed at the end.
        metrics: Returns the URL of the host's metrics.
        ready: Called with the console's URL when requests are served.
        stop: Ends the server; without it, it serves until the process ends.
        own: The worker's metrics: counts rejected live messages, and reviews of alerts.
        changes: See `Control.changes`.

    Raises:
        ConfigError: The users file or password file, the certificate or its key cannot be used.
        StoreError: A subscription to notifications of a user who is gone cannot be removed.
    """
    with listener:
        site = Site(config, metrics, own, changes)
        accounts = load_accounts(config, lambda: [camera.id for camera in site.config.cameras])
        end_old_subscriptions(config, accounts)
        asyncio.run(_serve(site, accounts, live_endpoint, listener, ready, stop or threading.Event()))


async def _serve(
    site: Site,
    accounts: Accounts | None,
    endpoint: str,
    listener: Listener,
    ready: Ready | None,
    stop: threading.Event,
) -> None:
    settings = site.config.console
    trials = Trials(site.config)
    config = uvicorn.Config(
        Peers(make_app(site, trials, accounts), listener, settings.trusted_proxies),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    config.load()
    tasks = []
    if settings.tls is not None:
        config.ssl = certificate.open_context(settings.tls)
        tasks.append(asyncio.create_task(certificate.follow(settings.tls, config.ssl)))
    tasks += [
        asyncio.create_task(_sweep(listener)),
        asyncio.create_task(site.follow_frames(endpoint)),
        asyncio.create_task(site.follow_store_and_cameras()),
        asyncio.create_task(site.follow_metrics()),
        asyncio.create_task(_until(stop)),
        asyncio.create_task(_follow_users(site.config, accounts)),
    ]
    address = url("http" if settings.tls is None else "https", settings.host, listener.getsockname()[1])
    server = _Server(config, lambda: ready(address) if ready else None)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        done, _ = await asyncio.wait([serving, *tasks], return_when=asyncio.FIRST_COMPLETED)
        site.hub.close()
        trials.close()
        server.should_exit = True
        await serving
        for task in done:
            task.result()  # raise its exception, if any
    finally:
        for task in (serving, *tasks):
            task.cancel()
        await asyncio.gather(serving, *tasks, return_exceptions=True)
        site.close()


async def _until(stop: threading.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.05)


async def _sweep(listener: Listener) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        listener.close_overdue()


async def _follow_users(config: Config, accounts: Accounts | None) -> None:
    """End what browsers of users who are gone are sent, also while nobody asks anything."""
    users = accounts.users if accounts is not None else {}
    while True:
        await asyncio.sleep(SWEEP_S)
        if accounts is None or accounts.users is users:
            continue
        try:
            end_old_subscriptions(config, accounts)
            users = accounts.users
        except StoreError as error:
            structlog.get_logger().warning("notifications not ended; trying again", reason=str(error))


class _Server(uvicorn.Server):
    """Calls back when it is ready, and leaves signal handling to the process."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(STOP_S, self._cut_off)
        await super().shutdown(sockets)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection.transport, asyncio.Transport):
                connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
