"""The console's process.

In: the configuration, the track worker's live endpoint, a port.  Out: the page at that port of the loopback interface,
until it is told to stop.
"""

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import Counter

from pipeline.config import Config
from pipeline.console.app import make_app
from pipeline.console.password import Password, load_password
from pipeline.console.site import Site
from pipeline.console.trial import Trials
from pipeline.errors import ConfigError
from pipeline.transport.control import Changes

STOP_S = 0.5  # for answers under way; then a browser that does not take its answer is cut off
BACKLOG = 100

Ready = Callable[[int], None]


def run_console(
    config: Config,
    live_endpoint: str,
    listener: socket.socket | int | None = None,
    *,
    metrics: str | None = None,
    ready: Ready | None = None,
    stop: threading.Event | None = None,
    refused: Counter | None = None,
    changes: Changes = tuple,
) -> None:
    """Blocks until `stop` is set; without one, for ever.

    `listener` is a bound socket or a port, by default that of the configuration (0: any free one); `metrics` the
    address of the host's metrics; `ready` is called with the port when requests are answered; `refused` counts live
    messages that are malformed; `changes`: see `Control.changes`.  Raises ConfigError where the port is taken or the
    password file is none.
    """
    if not isinstance(listener, socket.socket):
        listener = bind(config.console.host, config.console.port if listener is None else listener)
    with listener:
        password, site = load_password(config), Site(config, metrics, refused, changes)
        asyncio.run(_serve(site, password, live_endpoint, listener, ready, stop or threading.Event()))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.  Raises ConfigError, which says what to do."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = "is taken by another program" if error.errno == errno.EADDRINUSE else f"is refused ({error.strerror})"
        raise ConfigError(f"console.port: {host}:{port} {reason}; name another, or 0 for any free one") from error
    return listener


async def _serve(
    site: Site,
    password: Password | None,
    endpoint: str,
    listener: socket.socket,
    ready: Ready | None,
    stop: threading.Event,
) -> None:
    trials = Trials(site.config)
    config = uvicorn.Config(
        make_app(site, trials, password),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
        limit_concurrency=256,
    )
    server = _Server(config, ready)
    tasks = [
        asyncio.create_task(server.serve([listener])),
        asyncio.create_task(site.follow_frames(endpoint)),
        asyncio.create_task(site.follow_store_and_cameras()),
        asyncio.create_task(_until(stop)),
    ]
    metrics = asyncio.create_task(site.follow_metrics())  # ends by itself where there are none
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        site.hub.close()
        trials.close()
        server.should_exit = True
        await tasks[0]
        for task in done:
            task.result()  # what failed, if something did
    finally:
        for task in (*tasks, metrics):
            task.cancel()
        await asyncio.gather(*tasks, metrics, return_exceptions=True)
        site.close()


async def _until(stop: threading.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.05)


class _Server(uvicorn.Server):
    """Says when it is ready, and leaves the signals to the process it runs in."""

    def __init__(self, config: uvicorn.Config, ready: Ready | None) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None and sockets:
            self._ready(int(sockets[0].getsockname()[1]))

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
