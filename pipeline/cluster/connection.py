"""A thread that keeps a connection to a NATS server, and works on it in steps that are repeated."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import structlog
from prometheus_client import Gauge

from pipeline.cluster.jetstream import JetStream
from pipeline.config.hosts import NatsConfig
from pipeline.errors import ClusterError

RECONNECT_S = 0.5

T = TypeVar("T")
Step = Callable[[JetStream], Awaitable[float]]  # returns how long to wait before it is called again, s


class Connection:
    """Connects again without end.

    Args:
        config: the servers.
        host: this one; names the connection on the server.
        keep_days: how long events are kept.
        connected: 1 while there is a connection.

    Attributes:
        stream: the connection; None while there is none.
        loop: of the thread.
    """

    def __init__(self, config: NatsConfig, host: str, keep_days: float, connected: Gauge | None = None) -> None:
        self.stream: JetStream | None = None
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._task_failed)  # tasks of the library, when a connection is lost
        self._config, self._host, self._keep_days, self._connected = config, host, keep_days, connected
        self._steps: Sequence[Step] = ()
        self._leave: Step | None = None
        self._stopping = asyncio.Event()
        self._told = ""  # the last failure that was logged
        self._log = structlog.get_logger().bind(host=host)
        self._thread = threading.Thread(target=self._main, name="nats", daemon=True)

    def start(self, steps: Sequence[Step], leave: Step | None = None) -> None:
        """Connect, and repeat the steps, each by itself; `leave` is called before the connection is closed."""
        self._steps, self._leave = steps, leave
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Run a coroutine in the thread; called by others.  Raise ClusterError where it has ended."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise ClusterError("the connection is closed") from None

    def close(self, timeout_s: float) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout_s)

    def tell(self, event: str, reason: str, *, is_error: bool = False) -> None:
        """Log a failure: the first as a warning or error, repeats at debug level."""
        log = self._log.error if is_error else self._log.warning
        (self._log.debug if reason == self._told else log)(event, reason=reason)
        self._told = reason

    def _main(self) -> None:
        try:
            self.loop.run_until_complete(self._run())
            self.loop.run_until_complete(_end_tasks())
        finally:
            self.loop.close()

    def _task_failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._log.debug("task of the connection failed", reason=str(context.get("exception") or context["message"]))

    async def _run(self) -> None:
        while not self._stopping.is_set():
            started_s = time.monotonic()
            try:
                await self._connect()
            except ClusterError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - the thread's top level: else nobody renews the session any more
                self.tell("connection to NATS failed", f"{type(error).__name__}: {error}", is_error=True)
            if time.monotonic() - started_s < RECONNECT_S:
                await within(RECONNECT_S, self._stopping.wait())

    async def _connect(self) -> None:
        """Connect once, and repeat the steps until the connection fails.  Raise ClusterError where there is none."""
        stream = await JetStream.connect(self._config, f"dasnet {self._host}", self._keep_days)
        try:
            self._told = ""
            self._log.info("connected to NATS", server=stream.place)
            self._show(stream)
            await self._until_one_ends(stream)
            if self._stopping.is_set() and self._leave is not None:
                await self._leave(stream)
        finally:
            self._show(None)
            await stream.close()

    def _show(self, stream: JetStream | None) -> None:
        self.stream = stream
        if self._connected is not None:
            self._connected.set(stream is not None)

    def _fail(self, error: ClusterError) -> None:
        self.tell("NATS unreachable: cameras stay where they are", str(error))

    async def _until_one_ends(self, stream: JetStream) -> None:
        """Repeat the steps until the connection fails, or the thread is to end."""
        ended = asyncio.Event()  # Python 3.11 may lose a cancellation in `wait_for`
        loops = [self._repeat(step, stream, ended) for step in self._steps]
        tasks = [asyncio.ensure_future(each) for each in (*loops, self._stopping.wait())]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended.set()
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            error = task.exception()
            if isinstance(error, ClusterError):
                self._fail(error)
            elif error is not None:
                raise error

    async def _repeat(self, step: Step, stream: JetStream, ended: asyncio.Event) -> None:
        """Repeat a step.  Raise ClusterError where it failed twice, or the connection is lost."""
        failed = False
        while not ended.is_set():
            started_s = time.monotonic()
            try:
                wait_s = await step(stream)
                failed = False
            except ClusterError:
                if failed or not stream.is_connected:
                    raise
                failed, wait_s = True, 0.0
            await asyncio.sleep(max(0.0, wait_s - (time.monotonic() - started_s)))


async def _end_tasks() -> None:
    """End what the library and the steps left running."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def within(seconds: float, awaited: Coroutine[Any, Any, Any]) -> None:
    """Wait for something, but no longer than this."""
    try:
        await asyncio.wait_for(awaited, seconds)
    except TimeoutError:
        return


async def all_of(awaited: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all, also where some fail: none goes on beside what follows.  Raise the first failure."""
    for result in await asyncio.gather(*awaited, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
